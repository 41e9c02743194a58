// One step of flow matching's Euler sampler and classifier-free guidance.
#pragma once

#include "autograd/tensor.h"

namespace vkflux {

/// x + (to - from) * velocity
Tensor euler_step(const Tensor& x, const Tensor& velocity, double from, double to);
/// negative + scale * (positive - negative)
Tensor guide(const Tensor& positive, const Tensor& negative, float scale);
/// level * noise + (1 - level) * clean
Tensor noised(const Tensor& clean, const Tensor& noise, double level);

}  // namespace vkflux
