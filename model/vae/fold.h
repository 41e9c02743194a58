// Squares of cells as channels of one cell: FLUX.2's latents.
#pragma once

#include <cstdint>

#include "autograd/ops.h"

namespace vkflux {

/// [B, c, h, w] -> [B, c p p, h / p, w / p], channel c p p + py p + px; h and w multiples of p.
inline Tensor fold_squares(const Tensor& z, int64_t p) {
  const Shape cells{z.dim(0), z.dim(2) / p, z.dim(3) / p, z.dim(1) * p * p};
  return op::nhwc_to_nchw(op::reshape(op::patchify(z, p), cells));
}

/// The inverse.
inline Tensor unfold_squares(const Tensor& x, int64_t p) {
  const Tensor tokens = op::reshape(op::nchw_to_nhwc(x), {x.dim(0), x.dim(2) * x.dim(3), x.dim(1)});
  return op::unpatchify(tokens, p, x.dim(2) * p, x.dim(3) * p);
}

}  // namespace vkflux
