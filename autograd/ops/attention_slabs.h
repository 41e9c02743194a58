// Slabs of attention's matrix of scores, for the forms that hold one at a time.
#pragma once

#include <cstdint>
#include <functional>

#include "autograd/ops/attention_forms.h"
#include "autograd/ops/matmul_engine.h"

namespace vkflux {

/// Heads [bh0, bh0 + count) of the B H heads, queries [q0, q0 + rows).
struct AttentionSlab {
  int64_t bh0, count, q0, rows;
};

/// Floats of a row of a slab: Nk rounded up to a multiple of 4.
int64_t score_stride(const AttentionProblem& p);

/// Slabs of which `buffers` take a bounded size together; those of a head follow each other. all_heads: every
/// slab has all heads (so that sums over the batch see all terms).
void each_slab(const AttentionProblem& p, int64_t buffers, bool all_heads,
               const std::function<void(const AttentionSlab&)>& f);

/// Key mask as floats in rows of score_stride(), [B, stride]; undefined without a mask.
Tensor attention_keep(const AttentionProblem& p);

/// A slab's rows of a [B, H, Nq, D] tensor, and its heads of a [B, H, Nk, D] one.
GemmMatrix slab_queries(const AttentionProblem& p, const AttentionSlab& s, const Tensor& x);
GemmMatrix slab_keys(const AttentionProblem& p, const AttentionSlab& s, const Tensor& x);

}  // namespace vkflux
