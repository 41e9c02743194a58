#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "train/data/augment.h"
#include "train/rng.h"
#include "vk/error.h"

namespace vkflux {
namespace {

RgbaImage random_image(int width, int height, uint32_t seed) {
  Rng rng(seed, 0);
  RgbaImage image(width, height);
  for (size_t i = 0; i < image.pixels.size(); i += 4) {
    const float alpha = rng.uniform();
    for (size_t c = 0; c < 3; ++c) image.pixels[i + c] = alpha * rng.uniform();
    image.pixels[i + 3] = alpha;
  }
  return image;
}

TEST(DatasetImage, StraightAlphaRoundTrip) {
  std::vector<uint8_t> bytes;
  for (uint8_t alpha : {0, 17, 128, 255}) {
    for (uint8_t value : std::array<uint8_t, 4>{255, 100, 3, alpha}) bytes.push_back(value);
  }
  const auto image = from_straight_rgba8(bytes, 2, 2);
  const auto back = to_straight_rgba8(image);
  EXPECT_EQ(back[3], 0);
  EXPECT_EQ(std::vector<uint8_t>(back.begin() + 4, back.end()),
            std::vector<uint8_t>(bytes.begin() + 4, bytes.end()));
  EXPECT_THROW(from_straight_rgba8(bytes, 3, 2), Error);
}

TEST(DatasetImage, LanczosKeepsConstantsAndNeverExceedsAlpha) {
  RgbaImage flat(13, 9);
  for (size_t i = 0; i < flat.pixels.size(); i += 4) {
    flat.pixels[i] = 0.25f;
    flat.pixels[i + 3] = 0.5f;
  }
  const auto small = resize_lanczos(flat, 5, 7);
  for (size_t i = 0; i < small.pixels.size(); i += 4) {
    EXPECT_NEAR(small.pixels[i], 0.25f, 1e-6f);
    EXPECT_NEAR(small.pixels[i + 3], 0.5f, 1e-6f);
  }
  const auto noisy = resize_lanczos(random_image(40, 40, 3), 17, 17);
  for (size_t i = 0; i < noisy.pixels.size(); i += 4) {
    for (size_t c = 0; c < 3; ++c) {
      ASSERT_GE(noisy.pixels[i + c], 0.0f);
      ASSERT_LE(noisy.pixels[i + c], noisy.pixels[i + 3]);
    }
    ASSERT_LE(noisy.pixels[i + 3], 1.0f);
  }
  EXPECT_THROW(resize_lanczos(flat, 0, 4), Error);
}

TEST(DatasetImage, LanczosMatchesTheFormulaAtOnePixel) {
  const auto image = random_image(17, 1, 9);
  const auto out = resize_lanczos(image, 8, 1);
  const double scale = 17.0 / 8, center = 3.5 * scale;
  double sum = 0, weight = 0;
  for (int j = 0; j < 17; ++j) {
    const double x = (j + 0.5 - center) / scale;
    if (std::abs(x) >= 3) continue;
    const double t = M_PI * x;
    const double w = x == 0 ? 1 : 3 * std::sin(t) * std::sin(t / 3) / (t * t);
    sum += w * static_cast<double>(image.at(j, 0)[3]);
    weight += w;
  }
  EXPECT_NEAR(out.at(3, 0)[3], std::clamp(sum / weight, 0.0, 1.0), 2e-3);
}

TEST(DatasetImage, CompositeAndTint) {
  RgbaImage image(2, 1);
  const std::vector<float> pixels{0.5f, 0.25f, 0, 0.5f, 0, 0, 0, 0};
  image.pixels = pixels;
  std::vector<float> planes(6);
  composite_planar(image, {1, 0, 1}, planes);
  EXPECT_EQ(planes, (std::vector<float>{1, 1, -0.5f, -1, 0, 1}));
  EXPECT_THROW(composite_planar(image, {1, 1, 1}, std::span(planes).first(5)), Error);

  RgbaImage grey(3, 1);
  grey.pixels = {0.25f, 0.25f, 0.25f, 1, 1, 1, 1, 1, 0.25f, 0.25f, 0.25f, 0.5f};
  const auto red = tinted(grey, {0.8f, 0.2f, 0});
  EXPECT_NEAR(red.pixels[0], 0.4f, 1e-5f);  // 2L = 0.5
  EXPECT_NEAR(red.pixels[1], 0.1f, 1e-5f);
  EXPECT_NEAR(red.pixels[4], 1.0f, 1e-5f);  // white stays white
  EXPECT_NEAR(red.pixels[6], 1.0f, 1e-5f);
  EXPECT_NEAR(red.pixels[8], 0.4f, 1e-5f);  // L = 0.5 at alpha 0.5: the colour itself
  EXPECT_EQ(red.pixels[11], 0.5f);
}

TEST(DatasetImage, Augmentations) {
  const auto image = random_image(5, 4, 1);
  EXPECT_EQ(mirrored(mirrored(image)).pixels, image.pixels);
  EXPECT_EQ(*mirrored(image).at(0, 2), *image.at(4, 2));
  const auto moved = shifted(image, 2, -1);
  EXPECT_EQ(*moved.at(2, 0), *image.at(0, 1));
  EXPECT_EQ(moved.at(1, 0)[3], 0.0f);
  EXPECT_EQ(moved.at(3, 3)[3], 0.0f);
  EXPECT_EQ(with_channels(image, {2, 0, 1}).at(1, 1)[0], image.at(1, 1)[2]);
  const auto square = padded_to_square(image);
  EXPECT_EQ(square.height, 5);
  EXPECT_EQ(center_crop(image, 1, 1).width, 4);
}

}  // namespace
}  // namespace vkflux
