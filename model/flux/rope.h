// Rotary position tables, computed on the host in double precision.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "autograd/tensor.h"

namespace vkflux {

/// ids: [batch, N, axes] positions; axes: channels per axis (even). -> f32 [batch, N, D/2, 2] (cos, sin) of
/// id * theta^(-2m/d), axes after one another, D the sum of axes.
Tensor rope_table(Device& device, std::span<const float> ids, int64_t batch, const std::vector<int64_t>& axes,
                  double theta);

/// FLUX.1 ids [text + rows * columns, 3]: text all zero, then image tokens (0, row, column).
std::vector<float> flux1_ids(int64_t text, int64_t rows, int64_t columns);

}  // namespace vkflux
