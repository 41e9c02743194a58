// The one matrix-product engine behind linear, matmul and attention.
#pragma once

#include <cstdint>

#include "autograd/ops.h"
#include "autograd/tensor.h"

namespace vkflux {

enum class GemmForm : uint32_t {
  nt,  // A[M, K], B[N, K]
  nn,  // A[M, K], B[K, N]
  tn,  // A[K, M], B[K, N]
};

/// A stack of row-major matrices. Counts are in elements; offset and batch_stride are relative to the
/// tensor's first element, which must be aligned for binding.
struct GemmMatrix {
  Tensor tensor;
  int64_t ld = 0;  // from one row to the next
  int64_t batch_stride = 0;
  int64_t offset = 0;
};

/// C = act(alpha op(A) op(B) + bias), or C += when accumulate is set. A and C are f32, B f32, f16, bf16 or,
/// not for tn, a packed matrix (autograd/packed.h; batch 1, whole, ld its columns); sums are f32. C must not
/// overlap A or B.
///
/// Fast on CPU implementations when lda, ldb, the offsets and the batch strides are multiples of 4 (ldb of 8
/// when B is 16-bit, likewise K for nt); every other shape takes the generic kernel.
struct Gemm {
  GemmForm form = GemmForm::nt;
  int64_t m = 0, n = 0, k = 0, batch = 1;
  GemmMatrix a, b, c;
  float alpha = 1;
  bool accumulate = false;
  Tensor bias;  // [N] f32 or undefined
  op::Activation act = op::Activation::none;
  bool c_padded = false;  // the elements of C's rows from N to the next multiple of 4 may be overwritten
  Tensor pre;             // when defined: receives the value before the activation, laid out as C
};

void gemm(Device& device, const Gemm& g);

}  // namespace vkflux
