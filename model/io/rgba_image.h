// Pictures as floats on the host, and the pure functions that bring any picture to the size of a model's.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "model/io/image8.h"

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
/// The largest part in the middle with sides as width : height; nothing is squeezed.
RgbaImage center_crop(const RgbaImage& image, int width, int height);
io::Image8 center_crop(const io::Image8& image, int width, int height);

/// Separable Lanczos-3 resampling, the kernel widened by the scale when shrinking. Alpha is clamped to [0, 1]
/// and colour to [0, alpha]: ringing would otherwise leave bright specks along edges.
RgbaImage resize_lanczos(const RgbaImage& image, int width, int height);

/// rgb + (1 - a) * background, mapped to [-1, 1], written as planes [3, height, width]. `out` has that many
/// floats.
void composite_planar(const RgbaImage& image, const Rgb& background, std::span<float> out);

/// How every picture from outside meets a model: its middle of the asked shape, resampled to width x height
/// pixels where it isn't of that size.
RgbaImage fitted(const io::Image8& image, int width, int height);

}  // namespace vkflux
