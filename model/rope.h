// Rotary position tables, computed on the host in double precision.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "autograd/tensor.h"

namespace vkflux {

/// ids: [batch, N, axes] positions; axes: channels per axis (even). -> f32 [batch, N, D/2, 2] (cos, sin) of
/// id * theta^(-2m/d), axes after one another, D the sum of axes.
/// periods: [N, axes] after how many positions an axis of a token repeats itself (textures that tile); 0:
/// never. There each frequency is rounded to the nearest one that fits. Empty: all 0.
Tensor rope_table(Device& device, std::span<const float> ids, int64_t batch, const std::vector<int64_t>& axes,
                  double theta, std::span<const float> periods = {});

}  // namespace vkflux
