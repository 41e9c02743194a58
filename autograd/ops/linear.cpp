// y = act(x W^T + b) and its gradients: dz = dy act'(z), dx = dz W, dW = dz^T x, db = column sums of dz.
#include <algorithm>

#include "autograd/ops.h"
#include "autograd/ops/matmul_engine.h"
#include "autograd/run.h"
#include "autograd/tape.h"

namespace vkflux::op {
namespace {

// The weight itself when its rows are dense and its start is aligned, else a copy.
Tensor usable_weight(const Tensor& w) {
  if (is_packed(w.dtype())) return w;
  const bool aligned =
      static_cast<uint64_t>(w.offset()) * size_of(w.dtype()) % w.device().caps().buffer_alignment == 0;
  const bool dense_rows =
      (w.dim(1) == 1 || w.strides()[1] == 1) && (w.dim(0) == 1 || w.strides()[0] >= w.dim(1));
  return aligned && dense_rows ? w : contiguous(w);
}

int64_t row_stride(const Tensor& w) {
  return w.dim(0) == 1 ? w.dim(1) : w.strides()[0];
}

Tensor activation_backward(const Tensor& dy, const Tensor& z, Activation act) {
  const Tensor dz = Tensor::empty(z.device(), z.shape());
  const uint64_t n4 = ceil_div(static_cast<uint64_t>(z.numel()), 4);
  const double n = static_cast<double>(z.numel());
  run(z.device(), spec::LinearActBwd{.LOCAL = 256, .ACT = act}, {dy, z, dz},
      args::LinearActArgs{static_cast<uint32_t>(n4)}, groups_1d(ceil_div(n4, 256)), {15 * n, 12 * n});
  return dz;
}

// [rows, columns] -> y[parts, columns], each part rows_per_part rows.
void sum_parts(const Tensor& x, int64_t rows, int64_t columns, int64_t rows_per_part, const Tensor& y,
               Store store) {
  constexpr uint32_t kLocal = 64;
  const int64_t parts = y.numel() / columns;
  const bool vector = columns % 4 == 0;
  const double n = static_cast<double>(rows * columns);
  run(x.device(), spec::LinearColumnSum{.LOCAL = kLocal, .VECTOR = vector, .ADD = store == Store::add},
      {x, y}, args::ColumnSumArgs{u32(rows), u32(columns), u32(rows_per_part)},
      {static_cast<uint32_t>(ceil_div(static_cast<uint64_t>(columns), kLocal * (vector ? 4 : 1))), u32(parts),
       1},
      {n, 4 * n});
}

void column_sum(const Tensor& x, int64_t rows, int64_t columns, const Tensor& y, Store store) {
  const int64_t rows_per_part =
      std::max<int64_t>(32, static_cast<int64_t>(ceil_div(static_cast<uint64_t>(rows), 1024)));
  const int64_t parts =
      static_cast<int64_t>(ceil_div(static_cast<uint64_t>(rows), static_cast<uint64_t>(rows_per_part)));
  if (parts <= 1) return sum_parts(x, rows, columns, std::max<int64_t>(rows, 1), y, store);
  const Tensor partial = Tensor::empty(x.device(), {parts, columns}, DType::f32, MemoryClass::scratch);
  sum_parts(x, rows, columns, rows_per_part, partial, Store::overwrite);
  sum_parts(partial, parts, columns, parts, y, store);
}

struct LinearBackward {
  Tensor x, x_dense, weight, w, bias, z;
  uint64_t y;
  int64_t rows;
  Activation act;

  void operator()(Grads& g) const {
    const int64_t n = weight.dim(0), k = weight.dim(1);
    Tensor dz = contiguous(g.of(y));
    if (act != Activation::none) dz = activation_backward(dz, z, act);
    Gemm p;
    p.form = GemmForm::nn;
    p.m = rows, p.n = k, p.k = n;
    p.a = {dz, n}, p.b = {w, row_stride(w)};
    add_product(g, x, k, p);
    if (weight.dtype() == DType::f32) {
      p.form = GemmForm::tn;
      p.m = n, p.n = k, p.k = rows;
      p.a = {dz, n}, p.b = {x_dense, k};
      add_product(g, weight, k, p);
    }
    g.write_or_add(bias, AddsTo::bindable,
                   [&](const Tensor& d, Store store) { column_sum(dz, rows, n, d, store); });
  }

  // The product p is the gradient of `of`, or a part of it.
  static void add_product(Grads& g, const Tensor& of, int64_t columns, Gemm p) {
    g.write_or_add(of, AddsTo::dense_rows, [&](const Tensor& d, Store store) {
      p.accumulate = store == Store::add;
      p.c = {d, d.is_contiguous() ? columns : row_stride(d)};
      if (!d.is_bindable()) p.c.tensor = d.covering(&p.c.offset);
      gemm(of.device(), p);
    });
  }
};

}  // namespace

Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias, Activation act) {
  const bool weight_ok = weight.rank() == 2 && weight.dtype() != DType::i32 && weight.dtype() != DType::u8;
  expect("linear", weight_ok, "weight must be [N, K] in f32, f16, bf16 or a packed type",
         {&x, &weight, &bias});
  expect("linear",
         x.dtype() == DType::f32 && x.rank() >= 1 && x.dim(-1) == weight.dim(1) && weight.dim(1) > 0,
         "x must be f32 [..., K] with the weight's K", {&x, &weight, &bias});
  expect("linear", !bias.defined() || (bias.dtype() == DType::f32 && bias.shape() == Shape{weight.dim(0)}),
         "bias must be f32 [N]", {&x, &weight, &bias});
  expect("linear", !is_packed(weight.dtype()) || !Tape::wants({&weight}),
         "a packed weight is frozen and has no gradient; train it in f32", {&x, &weight, &bias});
  Tape* tape = Tape::wants({&x, &weight, &bias});
  const auto pause =
      Tape::pause();  // copies made here are no values of their own: gradients go to the originals
  const int64_t n = weight.dim(0), k = weight.dim(1), rows = x.numel() / k;
  Shape shape = x.shape();
  shape[-1] = n;
  const Tensor y = Tensor::empty(x.device(), shape);
  Gemm p;
  p.m = rows, p.n = n, p.k = k;
  const Tensor dense = contiguous(x), w = usable_weight(weight);
  p.a = {dense, k}, p.b = {w, row_stride(w)}, p.c = {y, n};
  if (bias.defined()) p.bias = contiguous(bias);
  p.act = act;
  if (tape && act != Activation::none) p.pre = Tensor::empty(x.device(), shape);
  gemm(x.device(), p);
  if (tape) tape->push("linear", {y}, LinearBackward{x, dense, weight, w, bias, p.pre, y.id(), rows, act});
  return y;
}

}  // namespace vkflux::op
