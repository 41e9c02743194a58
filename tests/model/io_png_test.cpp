// PNG: round trips, every kind of picture as RGBA, text chunks, and files that lie.
#include "model/io/png.h"

#include <gtest/gtest.h>
#include <png.h>
#include <zlib.h>

#include <cstring>

#include "model/io/file.h"
#include "tests/harness/expect_error.h"
#include "tests/harness/temp_folder.h"

namespace vkflux::io {
namespace {

using test::expect_error;

Image8 picture(int width, int height, bool alpha) {
  Image8 image{width, height, std::vector<uint8_t>(static_cast<size_t>(width * height * 4))};
  for (size_t i = 0; i < image.rgba.size(); ++i)
    image.rgba[i] = i % 4 == 3 && !alpha ? 255 : static_cast<uint8_t>(i * 37);
  return image;
}

std::string big_endian(uint32_t v) {
  return {static_cast<char>(v >> 24), static_cast<char>(v >> 16), static_cast<char>(v >> 8),
          static_cast<char>(v)};
}

std::string chunk(const std::string& type, const std::string& data) {
  const std::string body = type + data;
  return big_endian(static_cast<uint32_t>(data.size())) + body +
         big_endian(static_cast<uint32_t>(
             ::crc32(0, reinterpret_cast<const Bytef*>(body.data()), static_cast<uInt>(body.size()))));
}

std::string deflated(const std::string& raw) {
  uLongf size = ::compressBound(raw.size());
  std::string out(size, '\0');
  ::compress(reinterpret_cast<Bytef*>(out.data()), &size, reinterpret_cast<const Bytef*>(raw.data()),
             raw.size());
  out.resize(size);
  return out;
}

const std::string kSignature("\x89PNG\r\n\x1a\n", 8);

/// A PNG by hand: colour type (0 grey, 2 RGB, 3 palette, 4 grey and alpha), bit depth, raw rows with filter
/// bytes.
std::string png_of(uint32_t width, uint32_t height, char depth, char colour, const std::string& raw,
                   const std::string& extra = "", const std::string& after = "") {
  const std::string head = big_endian(width) + big_endian(height) + std::string{depth, colour, 0, 0, 0};
  return kSignature + chunk("IHDR", head) + extra + chunk("IDAT", deflated(raw)) + after + chunk("IEND", "");
}

TEST(IoPng, RoundTrip) {
  const test::TempFolder folder;
  for (const bool alpha : {false, true}) {
    for (const auto& [w, h] : {std::pair(1, 1), std::pair(7, 3), std::pair(64, 65)}) {
      const Image8 image = picture(w, h, alpha);
      write_png(folder.file("x.png"), image);
      const Image8 back = read_png(folder.file("x.png"));
      EXPECT_EQ(back.width, w);
      EXPECT_EQ(back.height, h);
      EXPECT_EQ(back.rgba, image.rgba);
      EXPECT_EQ(read_file(folder.file("x.png"))[25], alpha ? PNG_COLOR_TYPE_RGBA : PNG_COLOR_TYPE_RGB);
    }
  }
}

TEST(IoPng, TextChunks) {
  const test::TempFolder folder;
  const PngText text{{"parameters", "a red apple\nSteps: 4"}, {"json", "{\"prompt\":\"\u00e9\U0001f34e\"}"}};
  write_png(folder.file("x.png"), picture(4, 4, false), text);
  EXPECT_EQ(read_png_text(folder.file("x.png")), text);
  const std::string bytes = read_file(folder.file("x.png"));
  EXPECT_NE(bytes.find("tEXtparameters"), std::string::npos);
  EXPECT_NE(bytes.find("iTXtjson"), std::string::npos);
  const std::string latin = chunk("tEXt", std::string("Title\0caf\xe9", 10)),
                    late = chunk("tEXt", std::string("Late\0x", 6));
  atomic_write(folder.file("y.png"), png_of(1, 1, 8, 0, std::string(2, '\0'), latin, late));
  EXPECT_EQ(read_png_text(folder.file("y.png")), (PngText{{"Title", "caf\u00e9"}, {"Late", "x"}}));
}

TEST(IoPng, EveryKindBecomesRgba) {
  const auto rgba = [](const std::string& bytes) { return decode_png(bytes, "test").rgba; };
  EXPECT_EQ(rgba(png_of(2, 1, 8, 0, std::string("\0\x10\xf0", 3))),
            (std::vector<uint8_t>{16, 16, 16, 255, 240, 240, 240, 255}));
  EXPECT_EQ(rgba(png_of(2, 1, 1, 0, std::string("\0\x40", 2))),
            (std::vector<uint8_t>{0, 0, 0, 255, 255, 255, 255, 255}));
  EXPECT_EQ(rgba(png_of(1, 1, 8, 4, std::string("\0\x20\x80", 3))), (std::vector<uint8_t>{32, 32, 32, 128}));
  EXPECT_EQ(rgba(png_of(1, 1, 16, 2, std::string("\0\xff\xff\x80\x00\x00\x00", 7))),
            (std::vector<uint8_t>{255, 128, 0, 255}));
  const std::string palette = chunk("PLTE", std::string("\1\2\3\4\5\6", 6)), trns = chunk("tRNS", "\x07");
  EXPECT_EQ(rgba(png_of(2, 1, 8, 3, std::string("\0\0\1", 3), palette + trns)),
            (std::vector<uint8_t>{1, 2, 3, 7, 4, 5, 6, 255}));
}

TEST(IoPng, RefusesDamage) {
  const std::string good = encode_png(picture(8, 8, true));
  const auto refused = [](const std::string& bytes, const std::string& word) {
    expect_error(ErrorCode::format, {"f.png", word}, [&] { decode_png(bytes, "f.png"); });
  };
  refused("", "PNG");
  refused("GIF89a..........", "PNG");
  for (size_t n = 0; n + 12 < good.size(); n += 5) refused(good.substr(0, n), "PNG");
  std::string flipped = good;
  flipped[good.size() / 2] = static_cast<char>(flipped[good.size() / 2] ^ 1);
  refused(flipped, "PNG");
  refused(png_of(2, 1, 8, 3, std::string("\0\0\0", 3)), "PNG");  // no palette
  refused(png_of(0, 1, 8, 0, "x"), "PNG");
  refused(png_of(2, 2, 8, 0, std::string(3, '\0')), "PNG");  // a row short
}

TEST(IoPng, RefusesSizesBeforeAllocating) {
  const auto refused = [](uint32_t w, uint32_t h, const std::string& word) {
    expect_error(ErrorCode::format, {"f.png", word}, [&] { decode_png(png_of(w, h, 8, 2, "x"), "f.png"); });
  };
  refused(0x7fffffff, 1, "PNG");
  refused(20000, 1, "PNG");
  refused(16384, 16384, "limit");
  refused(8000, 8000, "can't hold 8000x8000");
}

TEST(IoPng, TextThatUnpacksToMuchIsDropped) {
  const test::TempFolder folder;
  const std::string bomb = chunk("zTXt", std::string("big\0\0", 5) + deflated(std::string(32 << 20, 'a')));
  atomic_write(folder.file("x.png"), png_of(1, 1, 8, 0, std::string(2, '\0'), bomb));
  EXPECT_EQ(read_png(folder.file("x.png")).rgba.size(), 4u);
  try {
    size_t total = 0;
    for (const auto& [key, value] : read_png_text(folder.file("x.png"))) total += value.size();
    EXPECT_LE(total, 4u << 20);
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::format);
  }
}

TEST(IoPng, WriterChecksItsInput) {
  Image8 image = picture(2, 2, false);
  image.rgba.pop_back();
  expect_error(ErrorCode::invalid_argument, {"2x2"}, [&] { encode_png(image); });
  expect_error(ErrorCode::invalid_argument, {"keyword"}, [&] {
    encode_png(picture(1, 1, false), {{"", "x"}});
  });
  expect_error(ErrorCode::invalid_argument, {"keyword"}, [&] {
    encode_png(picture(1, 1, false), {{std::string(80, 'k'), "x"}});
  });
}

}  // namespace
}  // namespace vkflux::io
