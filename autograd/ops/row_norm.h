// The kernel behind layer_norm, layer_norm_modulate and rms_norm.
#pragma once

#include "autograd/tensor.h"

namespace vkflux {

struct RowNorm {
  const char* op;
  bool center;   // subtract the mean (layer norm)
  bool add_one;  // the factor is 1 + weight (modulation)
  float eps;
};

/// Normalises the last dimension of x. weight and bias: undefined, [C], or [B, C] with x[B, ..., C].
Tensor row_norm(const RowNorm& norm, const Tensor& x, const Tensor& weight, const Tensor& bias);

}  // namespace vkflux
