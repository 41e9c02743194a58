// Resampling of 8-bit pictures in Pillow's fixed-point arithmetic, bit for bit, so that a picture of another
// size means the same to a model here as in the programs that were used to train it.
#pragma once

#include <cstdint>
#include <vector>

#include "model/io/image8.h"
#include "model/io/picture.h"

namespace vkflux::io {

enum class Filter { nearest, bilinear, bicubic, lanczos };

/// Opaque 8-bit samples, `channels` of a pixel together, in rows from the top.
struct Samples8 {
  int width = 0, height = 0, channels = 1;
  std::vector<uint8_t> data;  // height * width * channels
};

/// Every channel by itself; along rows first, then along columns, 8 bits between. Error invalid_argument
/// unless all sides are positive and the data fit.
Samples8 resampled(const Samples8& in, int width, int height, Filter filter);

/// Scaled until it covers width x height, and the middle of that.
Samples8 covering(const Samples8& in, int width, int height, Filter filter);

/// Straight alpha: colour is weighted by alpha while it is mixed.
Image8 resampled(const Image8& in, int width, int height, Filter filter);

/// Brightness of red, green and blue, one sample a pixel; alpha isn't looked at.
Samples8 to_grey(const Image8& image);
/// A mask as grey samples: of the resampled picture with `cover` as in covering(). Pixels that are numbers of
/// colours (palettes, one bit) are picked, not mixed.
Samples8 mask_samples(const Picture& mask, int width, int height, bool cover = false);

}  // namespace vkflux::io
