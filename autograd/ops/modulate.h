// The kernel behind modulate and gate_residual.
#pragma once

#include "autograd/ops/rows.h"
#include "autograd/tensor.h"

namespace vkflux {

/// x[B, N, C] * (scale[B, C] (+ 1 with add_one)) + shift[B, C] + residual[B, N, C]; the latter two may be
/// undefined. x and residual are dense. out: where to put it, or undefined.
Tensor scale_columns(const Tensor& x, const RowView& scale, bool add_one, const RowView& shift,
                     const Tensor& residual, const Tensor& out = {});

}  // namespace vkflux
