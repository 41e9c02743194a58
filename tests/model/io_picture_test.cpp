// PNG, JPEG and WebP as people bring them: turned, transparent, in inks, animated, large, and damaged.
#include "model/io/picture.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>

#include "model/io/exif.h"
#include "model/io/png.h"
#include "model/io/rgba_image.h"
#include "tests/harness/expect_error.h"
#include "tests/harness/pictures.h"

namespace vkflux::io {
namespace {

using test::expect_error;
using test::flat;

/// A corner mark: the left upper quarter red, the rest blue.
Image8 marked(int width, int height) {
  Image8 out = flat(width, height, 20, 40, 220);
  for (int y = 0; y < height / 2; ++y) {
    for (int x = 0; x < width / 2; ++x) {
      uint8_t* p = &out.rgba[static_cast<size_t>(4 * (y * width + x))];
      p[0] = 230;
      p[1] = 30;
      p[2] = 10;
    }
  }
  return out;
}

void expect_near(const Image8& image, int x, int y, std::array<int, 4> want, int within = 4) {
  for (size_t c = 0; c < 4; ++c)
    EXPECT_NEAR(image.rgba[static_cast<size_t>(4 * (y * image.width + x)) + c], want[c], within)
        << "at " << x << ", " << y << " channel " << c;
}

TEST(IoPicture, KnowsFormatsByTheirContents) {
  const Image8 image = marked(48, 32);
  for (const auto& [bytes, format] : {std::pair(encode_png(image), "PNG"),
                                      {test::jpeg_of(image), "JPEG"},
                                      {test::jpeg_of(image, {.progressive = true}), "JPEG"},
                                      {test::webp_of(image), "WebP"}}) {
    const Picture p = decode_picture(bytes, "x.gif");
    EXPECT_EQ(p.facts.format, format);
    EXPECT_EQ(p.facts.width, 48);
    EXPECT_EQ(p.facts.height, 32);
    EXPECT_FALSE(p.facts.deep || p.facts.profile || p.facts.cmyk || p.facts.animated) << format;
    expect_near(p.image, 4, 4, {230, 30, 10, 255});
    expect_near(p.image, 40, 28, {20, 40, 220, 255});
  }
}

// EXIF: which side of the seen picture the stored row 0, and column 0, is.
TEST(IoPicture, TurnsUprightAsExifDefinesIt) {
  enum Side { top, bottom, left, right };
  const std::array<std::pair<Side, Side>, 8> sides{{{top, left},
                                                    {top, right},
                                                    {bottom, right},
                                                    {bottom, left},
                                                    {left, top},
                                                    {right, top},
                                                    {right, bottom},
                                                    {left, bottom}}};
  constexpr int w = 3, h = 2;
  Image8 stored{w, h, {}};
  for (int i = 0; i < w * h; ++i) {
    for (const int value : {i, 0, 0, 255}) stored.rgba.push_back(static_cast<uint8_t>(value));
  }
  for (int n = 1; n <= 8; ++n) {
    const auto [row0, column0] = sides[static_cast<size_t>(n - 1)];
    const bool sideways = row0 == left || row0 == right;
    const Image8 seen = upright(stored, n);
    ASSERT_EQ(seen.width, sideways ? h : w) << n;
    for (int r = 0; r < h; ++r) {
      for (int c = 0; c < w; ++c) {
        const int from_row = row0 == top || row0 == left ? r : h - 1 - r;
        const int from_column = column0 == top || column0 == left ? c : w - 1 - c;
        const int x = sideways ? from_row : from_column, y = sideways ? from_column : from_row;
        EXPECT_EQ(seen.rgba[static_cast<size_t>(4 * (y * seen.width + x))], r * w + c) << n;
      }
    }
  }
}

TEST(IoPicture, ReadsOrientationInEveryFormat) {
  const Image8 image = marked(48, 32);
  std::string png = encode_png(image);
  // eXIf before the pixels: length, type, data; decoders skip a wrong checksum of a chunk that isn't
  // critical.
  const std::string exif = test::exif_of(6).substr(6);
  png.insert(33, std::string{0, 0, 0, static_cast<char>(exif.size())} + "eXIf" + exif + std::string(4, '\0'));
  for (const std::string& bytes :
       {test::jpeg_of(image, {.exif = test::exif_of(6)}),
        test::jpeg_of(image, {.exif = test::exif_of(6, true)}), test::webp_of(image, {{"EXIF", exif}}),
        test::webp_of(image, {{"EXIF", test::exif_of(6)}}), png}) {
    const Picture p = decode_picture(bytes, "x");
    EXPECT_EQ(p.facts.orientation, 6) << p.facts.format;
    EXPECT_EQ(p.image.width, 32);
    EXPECT_EQ(p.image.height, 48);
    expect_near(p.image, 28, 4, {230, 30, 10, 255});  // the mark went to the right
    expect_near(p.image, 4, 4, {20, 40, 220, 255});
  }
  for (const int odd : {0, 9, 65535})
    EXPECT_EQ(decode_picture(test::jpeg_of(image, {.exif = test::exif_of(odd)}), "x").image.width, 48) << odd;
}

TEST(IoPicture, OrientationOfDamagedNotesIsUpright) {
  const std::string good = test::exif_of(8);
  EXPECT_EQ(exif_orientation(good), 8);
  EXPECT_EQ(exif_orientation(good.substr(6)), 8);
  for (size_t n = 0; n + 8 < good.size(); ++n) EXPECT_EQ(exif_orientation(good.substr(0, n)), 1) << n;
  for (size_t i = 0; i < good.size(); ++i) {
    std::string bad = good;
    bad[i] = static_cast<char>(0xFF);
    const int orientation = exif_orientation(bad);
    EXPECT_TRUE(orientation == 1 || orientation == 8) << i;
  }
}

TEST(IoPicture, ConvertsGreyInksAndAnimations) {
  const Picture grey = decode_picture(test::jpeg_of(flat(16, 16, 77, 0, 0), {.grey = true}), "x");
  expect_near(grey.image, 8, 8, {77, 77, 77, 255}, 2);
  const Picture inks = decode_picture(test::jpeg_of(marked(48, 32), {.cmyk = true}), "x");
  EXPECT_TRUE(inks.facts.cmyk);
  expect_near(inks.image, 4, 4, {230, 30, 10, 255}, 6);
  const Picture film =
      decode_picture(test::animated_webp({flat(6, 4, 1, 2, 3), flat(6, 4, 200, 0, 0, 128)}), "x");
  EXPECT_TRUE(film.facts.animated);
  expect_near(film.image, 5, 3, {1, 2, 3, 255}, 0);
  const Picture clear = decode_picture(test::webp_of(flat(5, 3, 10, 20, 30, 128)), "x");
  EXPECT_TRUE(clear.facts.alpha);
  expect_near(clear.image, 4, 2, {10, 20, 30, 128}, 0);
  EXPECT_TRUE(probe_picture(test::jpeg_of(flat(8, 8, 0, 0, 0), {.profile = true}), "x").profile);
  EXPECT_TRUE(probe_picture(test::webp_of(flat(8, 8, 0, 0, 0), {{"ICCP", "none"}}), "x").profile);
}

TEST(IoPicture, PngHeadersTellWhatReadingChanges) {
  const std::string plain = encode_png(flat(8, 8, 0, 0, 0));
  const auto facts = [&](const std::string& type) {
    std::string bytes = plain;
    bytes.insert(33, std::string(4, '\0') + type + std::string(4, '\0'));
    return probe_picture(bytes, "x");
  };
  const PictureFacts none = probe_picture(plain, "x");
  EXPECT_FALSE(none.alpha || none.deep || none.profile || none.animated);
  EXPECT_TRUE(facts("tRNS").alpha);
  EXPECT_TRUE(facts("iCCP").profile);
  EXPECT_TRUE(facts("acTL").animated);
  std::string deep = plain;
  deep[24] = 16;
  EXPECT_TRUE(probe_picture(deep, "x").deep);
  EXPECT_TRUE(probe_picture(encode_png(flat(8, 8, 0, 0, 0, 7)), "x").alpha);
}

TEST(IoPicture, RefusesDamageByName) {
  const Image8 image = marked(160, 96);
  const auto refused = [](const std::string& bytes, const std::string& word) {
    expect_error(ErrorCode::format, {"f.jpg", word}, [&] { decode_picture(bytes, "f.jpg"); });
  };
  refused("", "empty");
  refused("GIF89a..........", "GIF");
  refused("II*\0....", "f.jpg");
  refused(std::string("\0\0\0\x1c"
                      "ftypavif",
                      12),
          "AVIF");
  refused("\xFF\xD8\xFF", "JPEG");
  refused("RIFF\0\0\0\0WEBP", "f.jpg");
  for (const bool progressive : {false, true}) {
    const std::string jpeg = test::jpeg_of(image, {.progressive = progressive});
    for (size_t n = 3; n + 2 < jpeg.size(); n += 37) refused(jpeg.substr(0, n), "JPEG");
    refused(jpeg.substr(0, jpeg.size() / 2) + "\xFF\xD9", "JPEG");
  }
  const std::string webp = test::webp_of(image), film = test::animated_webp({image, image});
  for (const std::string& bytes : {webp, film}) {
    for (size_t n = 12; n < bytes.size(); n += 6) refused(bytes.substr(0, n), "WebP");
  }
}

TEST(IoPicture, RefusesSizesBeforeAllocating) {
  std::string jpeg = test::jpeg_of(flat(16, 16, 1, 2, 3));
  const size_t frame = jpeg.find("\xFF\xC0");  // length, depth, height, width
  ASSERT_NE(frame, std::string::npos);
  const auto sized = [&](unsigned height, unsigned width) {
    std::string out = jpeg;
    const unsigned sides[] = {height, width};
    for (size_t i = 0; i < 4; ++i) out[frame + 5 + i] = static_cast<char>(sides[i / 2] >> (i % 2 ? 0 : 8));
    return out;
  };
  const auto refused = [](const std::string& bytes, const std::string& word) {
    expect_error(ErrorCode::format, {"f.jpg", word}, [&] { decode_picture(bytes, "f.jpg"); });
  };
  refused(sized(65500, 65500), "limits");
  refused(sized(16384, 16384), "limits");
  refused(sized(8000, 8000), "can't hold 8000x8000");
}

// What a browser and Pillow do: the mean over the area, not a few of its pixels.
TEST(IoPicture, ShrinkingAverages) {
  Image8 lines = flat(1024, 1024, 255, 255, 255);
  for (int y = 0; y < 1024; y += 4) {
    for (int x = 0; x < 1024; ++x)
      for (int c = 0; c < 3; ++c) lines.rgba[static_cast<size_t>(4 * (y * 1024 + x) + c)] = 0;
  }
  const RgbaImage small = fitted(lines, 64, 64);
  ASSERT_EQ(small.width, 64);
  for (int y = 2; y < 62; ++y) {
    for (int x = 2; x < 62; ++x)
      ASSERT_NEAR(static_cast<double>(small.at(x, y)[1]) * 255, 191.25, 1.0) << x << ", " << y;
  }
}

TEST(IoPicture, FittingKeepsTheShapeOfThings) {
  Image8 wide = flat(256, 64, 255, 255, 255);
  for (int y = 0; y < 64; ++y) {
    for (int x = 96; x < 160; ++x)
      wide.rgba[static_cast<size_t>(4 * (y * 256 + x))] = 0;  // the middle square
  }
  const RgbaImage square = fitted(wide, 32, 32);
  for (int i = 0; i < 32; ++i) ASSERT_NEAR(square.at(i, 31 - i)[0], 0, 0.02f);
  EXPECT_EQ(center_crop(wide, 2, 1).width, 128);
  EXPECT_EQ(center_crop(wide, 8, 1).height, 32);
  EXPECT_EQ(center_crop(wide, 4, 1).rgba, wide.rgba);
  EXPECT_EQ(center_crop(flat(5000, 1, 0, 0, 0), 1, 9).width, 1);
  EXPECT_THROW(center_crop(wide, 0, 1), Error);
}

}  // namespace
}  // namespace vkflux::io
