// Other pictures from a picture of the data set: recoloured, moved, mirrored.
#pragma once

#include <array>

#include "model/io/rgba_image.h"

namespace vkflux {

/// Recolours by luminance L of the straight colour (Rec. 601): below 0.5 `color` * 2L, above it a mix towards
/// white.
RgbaImage tinted(const RgbaImage& image, const Rgb& color);

/// Moves the content by (dx, dy) pixels; what comes in is transparent.
RgbaImage shifted(const RgbaImage& image, int dx, int dy);
RgbaImage mirrored(const RgbaImage& image);
/// Output channel c is input channel order[c]; `order` is a permutation of {0, 1, 2}.
RgbaImage with_channels(const RgbaImage& image, const std::array<int, 3>& order);

}  // namespace vkflux
