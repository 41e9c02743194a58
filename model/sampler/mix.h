// Mixtures of noise and pictures, and of two predictions.
#pragma once

#include "autograd/tensor.h"

namespace vkflux {

/// negative + scale * (positive - negative)
Tensor guide(const Tensor& positive, const Tensor& negative, float scale);
/// level * noise + (1 - level) * clean
Tensor noised(const Tensor& clean, const Tensor& noise, double level);

}  // namespace vkflux
