#include "train/data/augment.h"

#include <algorithm>

namespace vkflux {

RgbaImage tinted(const RgbaImage& image, const Rgb& color) {
  RgbaImage out = image;
  for (size_t i = 0; i < out.pixels.size(); i += 4) {
    float* p = &out.pixels[i];
    if (p[3] <= 0.0f) continue;
    const float luminance = std::min(1.0f, (0.299f * p[0] + 0.587f * p[1] + 0.114f * p[2]) / p[3]);
    const float white = std::max(0.0f, 2.0f * luminance - 1.0f);
    const float shade = std::min(1.0f, 2.0f * luminance);
    for (size_t c = 0; c < 3; ++c) p[c] = p[3] * (color[c] * shade * (1.0f - white) + white);
  }
  return out;
}

RgbaImage shifted(const RgbaImage& image, int dx, int dy) {
  RgbaImage out(image.width, image.height);
  for (int y = std::max(0, dy); y < std::min(image.height, image.height + dy); ++y) {
    for (int x = std::max(0, dx); x < std::min(image.width, image.width + dx); ++x) {
      std::copy_n(image.at(x - dx, y - dy), 4, out.at(x, y));
    }
  }
  return out;
}

RgbaImage mirrored(const RgbaImage& image) {
  RgbaImage out(image.width, image.height);
  for (int y = 0; y < image.height; ++y) {
    for (int x = 0; x < image.width; ++x) std::copy_n(image.at(image.width - 1 - x, y), 4, out.at(x, y));
  }
  return out;
}

RgbaImage with_channels(const RgbaImage& image, const std::array<int, 3>& order) {
  RgbaImage out = image;
  for (size_t i = 0; i < out.pixels.size(); i += 4) {
    for (size_t c = 0; c < 3; ++c) out.pixels[i + c] = image.pixels[i + static_cast<size_t>(order[c])];
  }
  return out;
}

}  // namespace vkflux
