// Host images of the data set and the pure functions on them: resampling, compositing, recolouring,
// augmentation.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

namespace vkflux {

using Rgb = std::array<float, 3>;

/// height x width x 4 floats in [0, 1], row-major, interleaved. Colour is premultiplied: 0 <= r, g, b <= a.
struct RgbaImage {
  int width = 0, height = 0;
  std::vector<float> pixels;

  RgbaImage() = default;
  RgbaImage(int w, int h)
      : width(w), height(h), pixels(static_cast<size_t>(w) * static_cast<size_t>(h) * 4) {}
  float* at(int x, int y) {
    return &pixels[(static_cast<size_t>(y) * static_cast<size_t>(width) + static_cast<size_t>(x)) * 4];
  }
  const float* at(int x, int y) const { return const_cast<RgbaImage*>(this)->at(x, y); }
};

/// 8-bit straight-alpha RGBA (as in a PNG file) to and from premultiplied floats.
RgbaImage from_straight_rgba8(std::span<const uint8_t> rgba, int width, int height);
std::vector<uint8_t> to_straight_rgba8(const RgbaImage& image);

/// The image centred on a transparent square whose side is the longer edge.
RgbaImage padded_to_square(const RgbaImage& image);
/// The largest centred square.
RgbaImage center_crop_square(const RgbaImage& image);

/// Separable Lanczos-3 resampling, the kernel widened by the scale when shrinking. Alpha is clamped to [0, 1]
/// and colour to [0, alpha]: ringing would otherwise leave bright specks along edges.
RgbaImage resize_lanczos(const RgbaImage& image, int width, int height);

/// rgb + (1 - a) * background, mapped to [-1, 1], written as planes [3, height, width]. `out` has that many
/// floats.
void composite_planar(const RgbaImage& image, const Rgb& background, std::span<float> out);

/// Recolours by luminance L of the straight colour (Rec. 601): below 0.5 `color` * 2L, above it a mix towards
/// white.
RgbaImage tinted(const RgbaImage& image, const Rgb& color);

/// Moves the content by (dx, dy) pixels; what comes in is transparent.
RgbaImage shifted(const RgbaImage& image, int dx, int dy);
RgbaImage mirrored(const RgbaImage& image);
/// Output channel c is input channel order[c]; `order` is a permutation of {0, 1, 2}.
RgbaImage with_channels(const RgbaImage& image, const std::array<int, 3>& order);

}  // namespace vkflux
