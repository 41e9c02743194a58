// Pictures as they are written, and the texts they carry: by us, and by other programs.
#include "model/io/picture_file.h"

#include <gtest/gtest.h>

#include "model/io/exif.h"
#include "model/io/picture.h"
#include "tests/harness/expect_error.h"
#include "tests/harness/pictures.h"
#include "vk/error.h"

namespace vkflux::io {
namespace {

using test::expect_error;

Image8 waves(int width, int height) {
  Image8 image{width, height, {}};
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      const auto v = static_cast<uint8_t>(8 * x + 3 * y);
      for (const int channel : {8 * x + 3 * y, 255 - v, 5 * y, 255})
        image.rgba.push_back(static_cast<uint8_t>(channel));
    }
  }
  return image;
}

const PngText kTexts{{"parameters", "a caf\u00e9 \U0001F34E\nNegative prompt: \"<b>\" & ]]>\nSteps: 3"},
                     {"vkflux", "{\"prompt\": \"a </vkflux:text> \u00e9\", \"steps\": 3}"},
                     {"odd \"key\" <", "line\r\nline"}};

TEST(IoPictureFile, NamesTellTheFormat) {
  EXPECT_EQ(picture_format("a.png"), PictureFormat::png);
  EXPECT_EQ(picture_format("b.c/a.JPG"), PictureFormat::jpeg);
  EXPECT_EQ(picture_format("a.b.jpeg"), PictureFormat::jpeg);
  EXPECT_EQ(picture_format("a.WebP"), PictureFormat::webp);
  for (const char* other : {"", "png", "a.png/", "a.png/b", "a.", "a.bmp", "a.png.txt"})
    EXPECT_FALSE(picture_format(other)) << other;
}

TEST(IoPictureFile, TextsComeBackFromEveryFormat) {
  const Image8 image = waves(23, 11);
  for (const PictureFormat format : {PictureFormat::png, PictureFormat::jpeg, PictureFormat::webp}) {
    for (const int quality : {1, 90, 100}) {
      const std::string bytes = encode_picture(image, format, quality, kTexts);
      EXPECT_EQ(picture_text(bytes, "x"), kTexts) << static_cast<int>(format) << " " << quality;
      const Picture read = decode_picture(bytes, "x");
      EXPECT_EQ(read.facts.orientation, 1);
      ASSERT_EQ(read.image.width, 23);
      ASSERT_EQ(read.image.height, 11);
      if (format == PictureFormat::png || (format == PictureFormat::webp && quality == 100)) {
        EXPECT_EQ(read.image.rgba, image.rgba);
      } else if (quality == 90) {
        for (size_t i = 0; i < image.rgba.size(); ++i)
          EXPECT_NEAR(read.image.rgba[i], image.rgba[i], format == PictureFormat::jpeg ? 12 : 60) << i;
      }
    }
    EXPECT_TRUE(picture_text(encode_picture(image, format, 90, {}), "x").empty());
  }
}

TEST(IoPictureFile, WhatIsTooLongForAJpegIsLeftOutAndSaid) {
  const PngText texts{{"parameters", std::string(70000, 'p')}, {"vkflux", "{}"}};
  std::vector<std::string> left;
  const std::string jpeg = encode_picture(waves(4, 4), PictureFormat::jpeg, 90, texts, &left);
  EXPECT_EQ(left, std::vector<std::string>{"parameters"});
  EXPECT_EQ(picture_text(jpeg, "x"), (PngText{{"vkflux", "{}"}}));
  left.clear();
  const std::string webp = encode_picture(waves(4, 4), PictureFormat::webp, 90, texts, &left);
  EXPECT_TRUE(left.empty());
  EXPECT_EQ(picture_text(webp, "x"), texts);
}

TEST(IoPictureFile, TransparentPicturesStaySoInWebp) {
  Image8 image = waves(9, 9);
  for (size_t i = 3; i < image.rgba.size(); i += 8) image.rgba[i] = 40;
  for (const int quality : {80, 100}) {
    const std::string bytes = encode_picture(image, PictureFormat::webp, quality, kTexts);
    EXPECT_TRUE(probe_picture(bytes, "x").alpha);
    EXPECT_EQ(picture_text(bytes, "x"), kTexts);
    const Image8 read = decode_picture(bytes, "x").image;
    for (size_t i = 3; i < image.rgba.size(); i += 4) EXPECT_EQ(read.rgba[i], image.rgba[i]);
  }
}

/// A little-endian directory with texts, as ComfyUI's savers write them.
std::string exif_with(const std::vector<std::pair<uint16_t, std::string>>& entries) {
  const auto number = [](size_t v, size_t bytes) {
    std::string out;
    for (size_t i = 0; i < bytes; ++i) out += static_cast<char>(v >> (8 * i));
    return out;
  };
  std::string head = "II" + number(42, 2) + number(8, 4) + number(entries.size(), 2), data;
  const size_t begin = head.size() + 12 * entries.size() + 4;
  for (const auto& [tag, text] : entries) {
    head += number(tag, 2) + number(2, 2) + number(text.size() + 1, 4) + number(begin + data.size(), 4);
    data += text + std::string(1, '\0');
  }
  return head + number(0, 4) + data;
}

TEST(IoPictureFile, OtherProgramsTextsAreRead) {
  const std::string exif =
      exif_with({{0x010E, "prompt:{\"1\": 2}"}, {0x010F, "workflow:{}"}, {0x0110, "Nikon without a word"}});
  const std::string webp = test::webp_of(waves(5, 5), {{"EXIF", exif}});
  EXPECT_EQ(picture_text(webp, "x"), (PngText{{"prompt", "{\"1\": 2}"}, {"workflow", "{}"}}));
  const std::string jpeg = test::jpeg_of(waves(16, 16), {.exif = std::string("Exif\0\0", 6) + exif});
  EXPECT_EQ(picture_text(jpeg, "x").size(), 2u);
}

TEST(IoPictureFile, CommentsInEveryCode) {
  const auto comment = [](const std::string& data) {
    std::string exif = exif_comment("x");
    // The count and the text of the only comment are last.
    exif = exif.substr(0, exif.size() - 10);
    const size_t count = exif.size() - 12;
    for (size_t i = 0; i < 4; ++i) exif[count + i] = static_cast<char>(data.size() >> (24 - 8 * i));
    return exif_texts(exif + data);
  };
  const auto text = [&](const std::string& data) {
    const auto found = comment(data);
    return found.size() == 1 ? found[0].second : std::to_string(found.size()) + " texts";
  };
  EXPECT_EQ(text(std::string("UNICODE\0a\0b\0", 12)), "ab");  // little endian
  EXPECT_EQ(text(std::string("UNICODE\0\0a\0b", 12)), "ab");
  EXPECT_EQ(text(std::string("ASCII\0\0\0plain\0x", 15)), "plain");
  EXPECT_EQ(text(std::string("\0\0\0\0\0\0\0\0plain", 13)), "plain");
  EXPECT_EQ(text(std::string("JIS\0\0\0\0\0xxxx", 12)), "");
  EXPECT_EQ(text(std::string("UNICODE\0\xD8\0\0a", 12)), "\uFFFDa");  // half a pair
}

TEST(IoPictureFile, RefusesWhatCannotBe) {
  expect_error(ErrorCode::invalid_argument, {"quality"},
               [] { encode_picture(waves(2, 2), PictureFormat::jpeg, 0, {}); });
  expect_error(ErrorCode::invalid_argument, {"2x2"}, [] {
    Image8 image = waves(2, 2);
    image.rgba.pop_back();
    encode_picture(image, PictureFormat::webp, 90, {});
  });
  expect_error(ErrorCode::invalid_argument, {"16383"},
               [] { encode_picture(waves(16384, 1), PictureFormat::webp, 90, {}); });
  expect_error(ErrorCode::format, {"x"}, [] { picture_text("no picture", "x"); });
}

}  // namespace
}  // namespace vkflux::io
