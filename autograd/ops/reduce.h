// Sums in a fixed order, without atomics: partial sums over chunks of rows, then sums of the partials.
#pragma once

#include <cstdint>

#include "autograd/tensor.h"

namespace vkflux::op {

/// x (contiguous, bindable) seen as [outer, n, inner] -> flat [outer * inner], times scale. Not taped.
Tensor sum_middle(const Tensor& x, int64_t outer, int64_t n, int64_t inner, float scale);

/// Rows of chunk sums that one invocation makes.
struct Chunks {
  int64_t chunk, chunks;
};
/// rows: what is summed; lanes: invocations per chunk.
Chunks chunk_rows(int64_t rows, int64_t lanes);

inline constexpr int64_t kFlatRow = 256;  // a long row is summed as the columns of rows of this length

}  // namespace vkflux::op
