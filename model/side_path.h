// What is computed beside a linear layer's own product, so that its weight stays as it is stored: the changes
// that LoRA files make.
#pragma once

#include <vector>

#include "autograd/ops.h"

namespace vkflux {

/// y = gain * (W x) + bias + up (down x) + dense x, and the layer's own bias. Undefined tensors add nothing.
struct SidePath {
  Tensor down, up;  // [R, in], [out, R]: f32 or f16
  Tensor dense;     // [out, in]: f32 or f16
  Tensor gain;      // f32 [out]
  Tensor bias;      // f32 [out]
  /// rows [row, row + o1 o2) of the output get the Kronecker product of outer[o1, i1] and inner[o2, i2] times
  /// x
  struct Kronecker {
    Tensor outer, inner;
    int64_t row = 0;
  };
  std::vector<Kronecker> products;

  uint64_t bytes() const;
};

/// The layer's outputs [start, start + n) for the input whose columns are those of `parts`, one after the
/// other. bias: the layer's own, or undefined.
Tensor with_side_path(const SidePath& side, const Tensor& weight, const Tensor& bias,
                      const std::vector<Tensor>& parts, int64_t start, int64_t n, op::Activation act);

}  // namespace vkflux
