// Elementwise functions with a parameter, for the losses.
#pragma once

#include "autograd/tensor.h"

namespace vkflux::op {

enum class ParametricUnary : uint32_t {
  smooth_l1 = 14,  // |x| < p: x^2 / (2 p), else |x| - p / 2
  norm = 15,       // max(sqrt(x), p); no gradient where the floor holds
};
Tensor unary(const Tensor& x, ParametricUnary f, float p);

}  // namespace vkflux::op
