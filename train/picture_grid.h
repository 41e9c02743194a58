// Pictures of tensors side by side, for people to look at.
#pragma once

#include <vector>

#include "autograd/tensor.h"
#include "model/io/png.h"

namespace vkflux {

/// 8-bit RGB of one picture of x[B, 3, H, W] in [-1, 1]: round((x + 1) * 127.5), clamped.
io::Image8 to_picture(const Tensor& x, int64_t index);

/// Rows of up to `columns` pictures; with several batches of equal size, picture i of each stands below that
/// of the one before (originals above reconstructions, say).
io::Image8 picture_grid(const std::vector<Tensor>& batches, int columns);
io::Image8 picture_grid(const std::vector<io::Image8>& pictures, int columns);

}  // namespace vkflux
