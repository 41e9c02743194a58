// Attention as matrix products over slabs of scores of bounded size: S = scale q k^T, P = softmax(S), O = P
// v. Backward recomputes P from the log-sum-exp: dP = dO v^T, dS = P (dP - rowsum(dO O)), dq = scale dS k, dk
// = scale dS^T q, dv = P^T dO, adding over slabs in their order.
#include <algorithm>
#include <functional>

#include "autograd/ops/attention_forms.h"
#include "autograd/ops/matmul_engine.h"
#include "autograd/run.h"

namespace vkflux {
namespace {

constexpr int64_t kMaxScratch = 16 << 20;  // bytes of scores at once, all buffers together
constexpr int64_t kMaxBatch = 32768;       // workgroups in z

// Heads [bh0, bh0 + count) of the B H heads, queries [q0, q0 + rows).
struct Slab {
  int64_t bh0, count, q0, rows;
};

int64_t score_stride(const AttentionProblem& p) {
  return (p.nk + 3) / 4 * 4;
}

// all_heads: every slab has all heads (so that sums over the batch see all terms).
void each_slab(const AttentionProblem& p, int64_t buffers, bool all_heads,
               const std::function<void(const Slab&)>& f) {
  const int64_t floats = kMaxScratch / 4 / buffers, ld = score_stride(p), bh = p.batch * p.heads;
  const int64_t whole_heads = std::min({floats / (p.nq * ld), bh, kMaxBatch});
  const int64_t count = all_heads ? bh : std::max<int64_t>(whole_heads, 1);
  int64_t rows = std::clamp<int64_t>(floats / (count * ld), 1, p.nq);
  if (rows < p.nq && rows > 64) rows = rows / 64 * 64;
  for (int64_t bh0 = 0; bh0 < bh; bh0 += count) {
    for (int64_t q0 = 0; q0 < p.nq; q0 += rows) {
      f({bh0, std::min(count, bh - bh0), q0, std::min(rows, p.nq - q0)});
    }
  }
}

Tensor scratch_for(const AttentionProblem& p, int64_t buffers, bool all_heads) {
  int64_t most = 0;
  each_slab(p, buffers, all_heads, [&](const Slab& s) { most = std::max(most, s.count * s.rows); });
  return Tensor::empty(p.device(), {most, score_stride(p)}, DType::f32, MemoryClass::scratch);
}

// Key mask as floats in padded rows, [B, ld]; undefined without a mask.
Tensor keep_rows(const AttentionProblem& p) {
  if (!p.key_mask.defined()) return {};
  const Tensor keep = Tensor::empty(p.device(), {p.batch, score_stride(p)}, DType::f32, MemoryClass::scratch);
  const uint64_t n4 = static_cast<uint64_t>(keep.numel() / 4);
  run(p.device(), {"attention_keep", "f32", {256}}, {p.key_mask, keep},
      args::AttentionKeepArgs{u32(p.batch), u32(p.nk), u32(score_stride(p) / 4)},
      groups_1d(ceil_div(n4, 256)), {0, 5.0 * static_cast<double>(keep.numel())});
  return keep;
}

struct RowKernel {
  uint32_t local, width, flags;
  Groups groups(const Slab& s) const {
    return groups_1d(ceil_div(static_cast<uint64_t>(s.count * s.rows), local / width));
  }
};

RowKernel row_kernel(const AttentionProblem& p, bool simd) {
  const uint32_t flags =
      (p.key_mask.defined() ? 1u : 0u) | (p.causal ? 2u : 0u) | (p.bias.defined() ? 4u : 0u);
  return {simd ? 256u : 128u, simd ? p.device().caps().subgroup_size : 32u, flags};
}

args::AttentionSlabArgs slab_args(const AttentionProblem& p, const Slab& s) {
  return {u32(s.count * s.rows), u32(s.rows), u32(s.bh0), u32(s.q0),
          u32(p.heads),          u32(p.nq),   u32(p.nk),  u32(score_stride(p) / 4)};
}

// A slab's rows of a [B, H, Nq, D] tensor, and its heads of a [B, H, Nk, D] one.
GemmMatrix queries(const AttentionProblem& p, const Slab& s, const Tensor& x) {
  return {x, p.d, p.nq * p.d, (s.bh0 * p.nq + s.q0) * p.d};
}
GemmMatrix keys(const AttentionProblem& p, const Slab& s, const Tensor& x) {
  return {x, p.d, p.nk * p.d, s.bh0 * p.nk * p.d};
}
GemmMatrix slab_scores(const AttentionProblem& p, const Slab& s, const Tensor& x) {
  return {x, score_stride(p), s.rows * score_stride(p), 0};
}

// scores = alpha x y^T, x by queries, y by keys
void scores_product(const AttentionProblem& p, const Slab& s, const Tensor& x, const Tensor& y, float alpha,
                    const Tensor& scores) {
  Gemm g;
  g.form = GemmForm::nt;
  g.m = s.rows, g.n = p.nk, g.k = p.d, g.batch = s.count;
  g.a = queries(p, s, x), g.b = keys(p, s, y), g.c = slab_scores(p, s, scores);
  g.alpha = alpha;
  g.c_padded = true;
  gemm(p.device(), g);
}

// out (by queries) = alpha scores y, y by keys
void query_product(const AttentionProblem& p, const Slab& s, const Tensor& scores, const Tensor& y,
                   float alpha, const Tensor& out) {
  Gemm g;
  g.form = GemmForm::nn;
  g.m = s.rows, g.n = p.d, g.k = p.nk, g.batch = s.count;
  g.a = slab_scores(p, s, scores), g.b = keys(p, s, y), g.c = queries(p, s, out);
  g.alpha = alpha;
  gemm(p.device(), g);
}

// out (by keys) = or, after the first slab of a head, += alpha scores^T x, x by queries
void key_product(const AttentionProblem& p, const Slab& s, const Tensor& scores, const Tensor& x, float alpha,
                 const Tensor& out) {
  Gemm g;
  g.form = GemmForm::tn;
  g.m = p.nk, g.n = p.d, g.k = s.rows, g.batch = s.count;
  g.a = slab_scores(p, s, scores), g.b = queries(p, s, x), g.c = keys(p, s, out);
  g.alpha = alpha;
  g.accumulate = s.q0 > 0;
  gemm(p.device(), g);
}

void forward(const AttentionProblem& p, const Tensor& o, const Tensor& lse) {
  const bool simd = use_simd(p.device(), "matmul");
  const Tensor keep = keep_rows(p), scores = scratch_for(p, 1, false);
  const RowKernel k = row_kernel(p, simd);
  each_slab(p, 1, false, [&](const Slab& s) {
    scores_product(p, s, p.q, p.k, p.scale, scores);
    const double n = static_cast<double>(s.count * s.rows * score_stride(p));
    run(p.device(), {"attention_softmax", simd ? "simd" : "shared", {k.local, k.width, k.flags}},
        {scores, keep.defined() ? keep : scores, p.bias.defined() ? p.bias : scores, scores, lse},
        slab_args(p, s), k.groups(s), {20 * n, 8 * n});
    query_product(p, s, scores, p.v, 1, o);
  });
}

void bias_gradient(const AttentionProblem& p, const Slab& s, const Tensor& ds, const Tensor& dbias) {
  const uint64_t n4 = static_cast<uint64_t>(p.heads * s.rows * score_stride(p) / 4);
  const double n = static_cast<double>(s.count * s.rows * score_stride(p));
  run(p.device(), {"attention_dbias", "f32", {256}}, {ds, dbias},
      args::AttentionDbiasArgs{u32(p.batch), u32(p.heads), u32(s.rows), u32(s.q0), u32(p.nq), u32(p.nk),
                               u32(score_stride(p) / 4)},
      groups_1d(ceil_div(n4, 256)), {n, 4 * n});
}

void backward(const AttentionProblem& p, const AttentionGradients& g) {
  const bool all_heads = g.dbias.defined();
  const Tensor keep = keep_rows(p), delta = attention_delta(p, g);
  const Tensor scores = scratch_for(p, 2, all_heads), ds = scratch_for(p, 2, all_heads);
  const RowKernel k = row_kernel(p, use_simd(p.device(), "matmul"));
  each_slab(p, 2, all_heads, [&](const Slab& s) {
    scores_product(p, s, p.q, p.k, p.scale, scores);
    scores_product(p, s, g.d_o, p.v, 1, ds);
    const double n = static_cast<double>(s.count * s.rows * score_stride(p));
    run(p.device(), {"attention_softmax_bwd", "f32", {k.local, k.width, k.flags}},
        {scores, keep.defined() ? keep : scores, p.bias.defined() ? p.bias : scores, ds, g.lse, delta, scores,
         ds},
        slab_args(p, s), k.groups(s), {20 * n, 16 * n});
    if (g.dv.defined()) key_product(p, s, scores, g.d_o, 1, g.dv);
    if (g.dq.defined()) query_product(p, s, ds, p.k, p.scale, g.dq);
    if (g.dk.defined()) key_product(p, s, ds, p.q, p.scale, g.dk);
    if (g.dbias.defined()) bias_gradient(p, s, ds, g.dbias);
  });
}

}  // namespace

Tensor attention_delta(const AttentionProblem& p, const AttentionGradients& g) {
  const int64_t rows = p.batch * p.heads * p.nq;
  const Tensor delta = Tensor::empty(p.device(), {rows}, DType::f32, MemoryClass::scratch);
  const double n = static_cast<double>(rows * p.d);
  run(p.device(), {"attention_delta", "f32", {256}}, {g.o, g.d_o, delta},
      args::AttentionDeltaArgs{u32(rows), u32(p.d / 4)},
      groups_1d(ceil_div(static_cast<uint64_t>(rows), 256)), {2 * n, 8 * n});
  return delta;
}

const AttentionForm kComposedAttention{"composed", [](const AttentionProblem&) { return true; }, forward,
                                       backward};

}  // namespace vkflux
