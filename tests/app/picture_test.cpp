// Picture metrics, text on pictures, contact sheets.
#include <gtest/gtest.h>

#include <cmath>

#include "app/bitmap_font.h"
#include "app/contact_sheet.h"
#include "app/picture_metrics.h"
#include "vk/error.h"

namespace vkflux {
namespace {

RgbImage flat(int64_t width, int64_t height, uint8_t value) {
  return {width, height, std::vector<uint8_t>(static_cast<size_t>(width * height * 3), value)};
}

RgbImage pattern(int64_t width, int64_t height, unsigned step) {
  RgbImage p = flat(width, height, 0);
  for (size_t i = 0; i < p.rgb.size(); ++i) p.rgb[i] = static_cast<uint8_t>(i * step % 251);
  return p;
}

TEST(PictureMetrics, EqualPictures) {
  const RgbImage p = pattern(16, 12, 37);
  const PictureMetrics m = compare_pictures(p, p);
  EXPECT_TRUE(std::isinf(m.psnr));
  EXPECT_NEAR(m.ssim, 1, 1e-12);
  EXPECT_NEAR(m.cosine, 1, 1e-12);
  EXPECT_EQ(m.rmse, 0);
  EXPECT_EQ(compare_pictures(flat(4, 4, 0), flat(4, 4, 0)).cosine, 1);
}

TEST(PictureMetrics, FlatPicturesByHand) {
  // Every difference is 10, so the mean square is 100; only the luminance term of SSIM differs from 1.
  const PictureMetrics m = compare_pictures(flat(20, 15, 100), flat(20, 15, 110));
  EXPECT_NEAR(m.psnr, 10 * std::log10(65025.0 / 100), 1e-9);
  EXPECT_NEAR(m.rmse, 10.0 / 255, 1e-12);
  EXPECT_NEAR(m.ssim, (2 * 100.0 * 110 + 6.5025) / (100.0 * 100 + 110.0 * 110 + 6.5025), 1e-9);
  EXPECT_NEAR(m.cosine, 1, 1e-12);
}

TEST(PictureMetrics, OnePixelByHand) {
  RgbImage a = flat(2, 1, 0), b = a;
  b.rgb[0] = 30;
  const PictureMetrics m = compare_pictures(a, b);
  EXPECT_NEAR(m.psnr, 10 * std::log10(65025.0 * 6 / 900), 1e-9);
  EXPECT_EQ(m.cosine, 0);
  // The window is one pixel: 1 everywhere but in the red of the first, c1 / (30^2 + c1) there.
  EXPECT_NEAR(m.ssim, (5 + 6.5025 / (900 + 6.5025)) / 6, 1e-9);
}

TEST(PictureMetrics, SsimOfOneWindowFromItsDefinition) {
  const RgbImage a = pattern(11, 11, 37), b = pattern(11, 11, 41);
  double expected = 0;
  for (size_t c = 0; c < 3; ++c) {
    double total = 0, ma = 0, mb = 0, va = 0, vb = 0, cov = 0;
    for (int pass = 0; pass < 2; ++pass) {
      for (int i = 0; i < 121; ++i) {
        const double dx = i % 11 - 5, dy = i / 11 - 5, w = std::exp(-(dx * dx + dy * dy) / 4.5);
        const double x = a.rgb[static_cast<size_t>(i) * 3 + c], y = b.rgb[static_cast<size_t>(i) * 3 + c];
        if (pass == 0) {
          total += w;
          ma += w * x;
          mb += w * y;
        } else {
          va += w / total * (x - ma) * (x - ma);
          vb += w / total * (y - mb) * (y - mb);
          cov += w / total * (x - ma) * (y - mb);
        }
      }
      if (pass == 0) ma /= total, mb /= total;
    }
    expected += (2 * ma * mb + 6.5025) * (2 * cov + 58.5225) /
                ((ma * ma + mb * mb + 6.5025) * (va + vb + 58.5225)) / 3;
  }
  EXPECT_NEAR(compare_pictures(a, b).ssim, expected, 1e-9);
}

TEST(PictureMetrics, VectorsByHand) {
  const std::vector<float> a{3, 4}, b{4, 3}, c{1};
  const VectorMetrics m = compare_vectors(a, b);
  EXPECT_NEAR(m.cosine, 24.0 / 25, 1e-12);
  EXPECT_NEAR(m.rmse, 1, 1e-12);
  EXPECT_THROW(compare_vectors(a, c), Error);
  EXPECT_THROW(compare_pictures(flat(2, 2, 0), flat(2, 3, 0)), Error);
}

TEST(PictureMetrics, DifferencesAreAmplifiedAndClamped) {
  RgbImage a = flat(1, 1, 100), b = flat(1, 1, 103);
  b.rgb[1] = 0;
  EXPECT_EQ(difference_picture(a, b, 8).rgb, (std::vector<uint8_t>{24, 255, 24}));
  EXPECT_EQ(to_image8(a).rgba, (std::vector<uint8_t>{100, 100, 100, 255}));
}

TEST(BitmapFont, DrawsLettersApartAndStaysInside) {
  const auto drawn = [](const std::string& text, int width = 30) {
    io::Image8 p{width, 9, std::vector<uint8_t>(static_cast<size_t>(width) * 9 * 4, 255)};
    draw_text(p, 1, 1, text);
    return p.rgba;
  };
  const auto blank = drawn("");
  for (int c = 33; c < 127; ++c) {
    const std::string letter(1, static_cast<char>(c));
    EXPECT_NE(drawn(letter), blank) << letter;
    for (int d = 33; d < c; ++d)
      EXPECT_NE(drawn(letter), drawn(std::string(1, static_cast<char>(d)))) << letter << static_cast<char>(d);
  }
  const auto same = [&](const std::string& a, const std::string& b) { return drawn(a) == drawn(b); };
  for (const char* other :
       {"e", "?", "\u00e8", "\u00ea", "\u00eb", "\u011b", "\u0119", "\U0010fffd", "\u6f22"})
    EXPECT_FALSE(same("\u00e9", other)) << other;
  EXPECT_TRUE(same("a\u00e9z", "ae\u0301z"));  // composed or not
  EXPECT_FALSE(same("\u6f22", "??"));
  EXPECT_NE(drawn("AB", 5), drawn("", 5));  // the second letter lies outside
  EXPECT_EQ(drawn("AB", 5), drawn("AC", 5));
}

TEST(BitmapFont, SaysWhatItCannotDraw) {
  EXPECT_EQ(undrawable("plain, caf\u00e9 \u00c5\u010d\u0119\u00f1 e\u0301"), "");
  EXPECT_EQ(undrawable("a\U0010fffdb\U0010fffd"), "\U0010fffd");
  const std::string han = undrawable("\u6f22");  // as this system's fonts are
  EXPECT_TRUE(han.empty() || han == "\u6f22");
  EXPECT_EQ(undrawable("\xff").size() % 3, 0u);  // no byte that isn't UTF-8
  EXPECT_EQ(text_length("a\u6f22e\u0301\u00e9"), 5);
}

TEST(BitmapFont, WrapsAtSpaces) {
  EXPECT_EQ(wrap_text("one two three", 7), (std::vector<std::string>{"one two", "three"}));
  EXPECT_EQ(wrap_text("abcdefgh", 3), (std::vector<std::string>{"abc", "def", "gh"}));
  EXPECT_EQ(wrap_text("\xC3\xA9\xC3\xA9\xC3\xA9", 2),
            (std::vector<std::string>{"\xC3\xA9\xC3\xA9", "\xC3\xA9"}));
  EXPECT_EQ(wrap_text("\u6f22\u6f22", 3), (std::vector<std::string>{"\u6f22", "\u6f22"}));
  EXPECT_EQ(wrap_text("ab \u6f22", 1), (std::vector<std::string>{"ab", "\u6f22"}));
  EXPECT_TRUE(wrap_text("", 5).empty());
}

TEST(ContactSheet, PicturesAreReducedByMeans) {
  io::Image8 p{3, 2, {}};
  for (uint8_t v : {10, 20, 99, 30, 41, 99}) p.rgba.insert(p.rgba.end(), {v, v, v, 255});
  const io::Image8 half = reduced(p, 2);
  EXPECT_EQ(half.width, 1);
  EXPECT_EQ(half.height, 1);
  EXPECT_EQ(half.rgba, (std::vector<uint8_t>{25, 25, 25, 255}));
  EXPECT_EQ(enlarged(half, 2).rgba.size(), 16u);
}

TEST(ContactSheet, PutsPicturesInReadingOrderWithLabelsBelow) {
  std::vector<SheetCell> cells;
  for (uint8_t v : {10, 20, 30}) cells.push_back({to_image8(flat(72, 36, v)), {"seed 1"}});
  const io::Image8 sheet = contact_sheet(cells, 2);
  EXPECT_EQ(sheet.width, 2 * (144 + 6) + 6);  // 72 pixels are doubled
  EXPECT_EQ(sheet.height, 2 * (72 + 3 + 9 + 6) + 6);
  const auto at = [&](int x, int y) { return sheet.rgba[static_cast<size_t>(y * sheet.width + x) * 4]; };
  EXPECT_EQ(at(6, 6), 10);
  EXPECT_EQ(at(149, 77), 10);
  EXPECT_EQ(at(156, 6), 20);
  EXPECT_EQ(at(6, 96), 30);
  EXPECT_EQ(at(156, 96), 255);
  int ink = 0;
  for (int y = 81; y < 90; ++y) {
    for (int x = 6; x < 150; ++x) ink += at(x, y) == 0;
  }
  EXPECT_GT(ink, 30);
  EXPECT_THROW(contact_sheet({}, 2), Error);
  EXPECT_THROW(contact_sheet(std::vector<SheetCell>(200, {to_image8(flat(16000, 1, 0)), {}}), 200), Error);
}

}  // namespace
}  // namespace vkflux
