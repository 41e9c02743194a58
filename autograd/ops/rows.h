// Launch shapes that the row-wise and column-wise kernels share (shaders/common/row.glsl and columns.glsl).
#pragma once

#include <cstdint>

#include "autograd/run.h"

namespace vkflux {

/// One workgroup per row: how many invocations, and whether they are one SIMD-width subgroup.
struct RowShape {
  uint32_t lanes, simd, vec4;
  const char* variant = "f32";
};
/// op names the VariantOverride ("simd", "gpu"). cols: numbers in a row.
RowShape row_shape(Device& device, const char* op, int64_t cols);
/// The same for kernels that have the variant "wide".
RowShape wide_row_shape(Device& device, const char* op, int64_t cols);

/// Launch of kernels over [batch, rows, cols] with columns.glsl.
struct ColumnShape {
  const char* variant;  // "wide" or "f32"
  uint32_t local, vec4, rows_per_group;
  Groups groups;
};
ColumnShape column_shape(Device& device, int64_t batch, int64_t rows, int64_t cols);
/// The same for kernels that have the variant "wide"; op names the VariantOverride ("simd", "gpu").
ColumnShape wide_column_shape(Device& device, const char* op, int64_t batch, int64_t rows, int64_t cols);

/// op::contiguous off the tape: an op that records itself adds gradients to its original input.
Tensor dense(const Tensor& x);

/// A per-batch vector [B, C] as kernels read it: rows that start `stride` numbers apart.
struct RowView {
  Tensor tensor;
  uint32_t stride;
};
/// x[B, C] itself when its rows are dense, aligned and, for C % 4 == 0, a multiple of 4 apart, else a copy.
RowView row_view(const Tensor& x);

/// Sums over the rows of dy[batch, rows, cols] in fixed order -> plain [batch, cols], and of dy * xhat ->
/// weighted [batch, cols]. xhat = (x - mean) * rstd with stats[batch * rows] of (mean, rstd), or x itself
/// when stats is undefined. Only what is asked for is computed.
struct ColumnSums {
  Tensor plain, weighted;
};
ColumnSums column_sums(const Tensor& dy, const Tensor& x, const Tensor& stats, int64_t batch, int64_t rows,
                       int64_t cols, bool plain, bool weighted);

}  // namespace vkflux
