// Pictures as models give and take them: opaque, 8 bits a channel.
#pragma once

#include <cstdint>
#include <vector>

#include "autograd/tensor.h"
#include "model/io/image8.h"

namespace vkflux {

/// 8-bit R, G, B in rows from the top.
struct RgbImage {
  int64_t width = 0, height = 0;
  std::vector<uint8_t> rgb;
};
io::Image8 to_image8(const RgbImage& image);
/// Transparent parts as on white paper, as data sets show them to models too.
RgbImage on_white(const io::Image8& image);

/// How a picture of another shape meets the size that is drawn.
enum class Fit {
  stretch,  // squeezed or stretched to the size, as diffusers does
  crop      // scaled until it covers the size, and its middle taken
};

/// The picture in the given size, by Lanczos resampling as Pillow does it. Error invalid_argument for sides
/// below 1 pixel.
RgbImage in_size(const RgbImage& image, int64_t width, int64_t height, Fit fit = Fit::stretch);

/// x[B, 3, H, W] in [-1, 1], clamped and rounded. Error verification_failed where a value isn't finite.
std::vector<RgbImage> to_pictures(const Tensor& x);

}  // namespace vkflux
