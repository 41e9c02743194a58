// Batched products of activations and their gradients.
#include "autograd/ops.h"
#include "autograd/ops/matmul_engine.h"
#include "autograd/run.h"
#include "autograd/tape.h"

namespace vkflux::op {
namespace {

// c[batch, m, n] = a b in the given form; all contiguous.
Tensor product(GemmForm form, const Tensor& a, const Tensor& b, const Shape& shape, int64_t k) {
  const int64_t m = shape[-2], n = shape[-1];
  const Tensor c = Tensor::empty(a.device(), shape);
  if (k == 0) c.fill_zero();
  if (k == 0 || c.numel() == 0) return c;
  Gemm p;
  p.form = form;
  p.m = m, p.n = n, p.k = k;
  p.batch = c.numel() / (m * n);
  p.a = {a, a.dim(-1), m * k};
  p.b = {b, b.dim(-1), n * k};
  p.c = {c, n, m * n};
  gemm(a.device(), p);
  return c;
}

}  // namespace

Tensor matmul(const Tensor& a, const Tensor& b, bool transpose_b) {
  const bool ranks =
      a.rank() >= 2 && a.rank() == b.rank() && a.dtype() == DType::f32 && b.dtype() == DType::f32;
  expect("matmul", ranks, "both must be f32 matrices or stacks of them, of one rank", {&a, &b});
  bool ok = a.dim(-1) == b.dim(transpose_b ? -1 : -2);
  for (int i = 0; i + 2 < a.rank(); ++i) ok = ok && a.dim(i) == b.dim(i);
  expect("matmul", ok,
         transpose_b ? "needs [..., M, K] and [..., N, K]" : "needs [..., M, K] and [..., K, N]", {&a, &b});
  Tape* tape = Tape::wants({&a, &b});
  const auto pause = Tape::pause();
  const int64_t m = a.dim(-2), k = a.dim(-1), n = b.dim(transpose_b ? -2 : -1);
  const Tensor ad = contiguous(a), bd = contiguous(b);
  Shape shape = a.shape();
  shape[-1] = n;
  const Tensor c = product(transpose_b ? GemmForm::nt : GemmForm::nn, ad, bd, shape, k);
  if (!tape) return c;
  tape->push("matmul", {c}, [a, b, ad, bd, transpose_b, m, n, id = c.id()](Grads& g) {
    const Tensor dc = contiguous(g.of(id));
    if (g.wants(a)) g.add(a, product(transpose_b ? GemmForm::nn : GemmForm::nt, dc, bd, a.shape(), n));
    if (!g.wants(b)) return;
    g.add(b, transpose_b ? product(GemmForm::tn, dc, ad, b.shape(), m)
                         : product(GemmForm::tn, ad, dc, b.shape(), m));
  });
  return c;
}

Tensor matmul_tn(const Tensor& a, const Tensor& b) {
  bool ok = a.rank() >= 2 && a.rank() == b.rank() && a.dtype() == DType::f32 && b.dtype() == DType::f32 &&
            a.dim(-2) == b.dim(-2);
  for (int i = 0; ok && i + 2 < a.rank(); ++i) ok = a.dim(i) == b.dim(i);
  expect("matmul_tn", ok, "needs f32 [..., K, M] and [..., K, N]", {&a, &b});
  Tape* tape = Tape::wants({&a, &b});
  const auto pause = Tape::pause();
  const int64_t k = a.dim(-2), m = a.dim(-1), n = b.dim(-1);
  const Tensor ad = contiguous(a), bd = contiguous(b);
  Shape shape = a.shape();
  shape[-2] = m, shape[-1] = n;
  const Tensor c = product(GemmForm::tn, ad, bd, shape, k);
  if (!tape) return c;
  tape->push("matmul_tn", {c}, [a, b, ad, bd, m, n, id = c.id()](Grads& g) {
    const Tensor dc = contiguous(g.of(id));
    if (g.wants(a)) g.add(a, product(GemmForm::nt, bd, dc, a.shape(), n));
    if (g.wants(b)) g.add(b, product(GemmForm::nn, ad, dc, b.shape(), m));
  });
  return c;
}

}  // namespace vkflux::op
