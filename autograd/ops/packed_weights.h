// Packed weights (autograd/packed.h) as kernels see them.
#pragma once

#include <cstdint>

#include "autograd/tensor.h"

namespace vkflux {

/// The number of a weight's type in shaders/common/{weight,packed}_format.glsl.
uint32_t weight_format(DType t);

/// Decodes rows [row, row + rows) of a packed matrix into `to`, a dense f32, f16 or bf16 matrix with as many
/// columns. Rows of a length that isn't a multiple of 8 go to f32 only.
void decode_packed_rows(const Tensor& packed, int64_t row, int64_t rows, const Tensor& to);

}  // namespace vkflux
