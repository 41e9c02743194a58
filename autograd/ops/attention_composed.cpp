// Attention as matrix products over slabs of scores of bounded size: S = scale q k^T, P = softmax(S), O = P
// v. Backward recomputes P from the log-sum-exp: dP = dO v^T, dS = P (dP - rowsum(dO O)), dq = scale dS k, dk
// = scale dS^T q, dv = P^T dO, adding over slabs in their order.
#include <algorithm>
#include <functional>

#include "autograd/ops/attention_slabs.h"
#include "autograd/run.h"

namespace vkflux {
namespace {

Tensor scratch_for(const AttentionProblem& p, int64_t buffers, bool all_heads) {
  int64_t most = 0;
  each_slab(p, buffers, all_heads, [&](const AttentionSlab& s) { most = std::max(most, s.count * s.rows); });
  return Tensor::empty(p.device(), {most, score_stride(p)}, DType::f32, MemoryClass::scratch);
}

struct RowKernel {
  uint32_t local, width, flags;
  Groups groups(const AttentionSlab& s) const {
    return groups_1d(ceil_div(static_cast<uint64_t>(s.count * s.rows), local / width));
  }
};

RowKernel row_kernel(const AttentionProblem& p, bool simd) {
  const uint32_t flags =
      (p.key_mask.defined() ? 1u : 0u) | (p.causal ? 2u : 0u) | (p.bias.defined() ? 4u : 0u);
  return {simd ? 256u : 128u, simd ? p.device().caps().subgroup_size : 32u, flags};
}

args::AttentionSlabArgs slab_args(const AttentionProblem& p, const AttentionSlab& s) {
  return {u32(s.count * s.rows), u32(s.rows), u32(s.bh0), u32(s.q0),
          u32(p.heads),          u32(p.nq),   u32(p.nk),  u32(score_stride(p) / 4)};
}

GemmMatrix slab_scores(const AttentionProblem& p, const AttentionSlab& s, const Tensor& x) {
  return {x, score_stride(p), s.rows * score_stride(p), 0};
}

// scores = alpha x y^T, x by queries, y by keys
void scores_product(const AttentionProblem& p, const AttentionSlab& s, const Tensor& x, const Tensor& y,
                    float alpha, const Tensor& scores) {
  Gemm g;
  g.form = GemmForm::nt;
  g.m = s.rows, g.n = p.nk, g.k = p.d, g.batch = s.count;
  g.a = slab_queries(p, s, x), g.b = slab_keys(p, s, y), g.c = slab_scores(p, s, scores);
  g.alpha = alpha;
  g.c_padded = true;
  gemm(p.device(), g);
}

// out (by queries) = alpha scores y, y by keys
void query_product(const AttentionProblem& p, const AttentionSlab& s, const Tensor& scores, const Tensor& y,
                   float alpha, const Tensor& out) {
  Gemm g;
  g.form = GemmForm::nn;
  g.m = s.rows, g.n = p.d, g.k = p.nk, g.batch = s.count;
  g.a = slab_scores(p, s, scores), g.b = slab_keys(p, s, y), g.c = slab_queries(p, s, out);
  g.alpha = alpha;
  gemm(p.device(), g);
}

// out (by keys) = or, after the first slab of a head, += alpha scores^T x, x by queries
void key_product(const AttentionProblem& p, const AttentionSlab& s, const Tensor& scores, const Tensor& x,
                 float alpha, const Tensor& out) {
  Gemm g;
  g.form = GemmForm::tn;
  g.m = p.nk, g.n = p.d, g.k = s.rows, g.batch = s.count;
  g.a = slab_scores(p, s, scores), g.b = slab_queries(p, s, x), g.c = slab_keys(p, s, out);
  g.alpha = alpha;
  g.accumulate = s.q0 > 0;
  gemm(p.device(), g);
}

void forward(const AttentionProblem& p, const Tensor& o, const Tensor& lse) {
  const bool simd = use_simd(p.device(), "matmul");
  const Tensor keep = attention_keep(p), scores = scratch_for(p, 1, false);
  const RowKernel k = row_kernel(p, simd);
  each_slab(p, 1, false, [&](const AttentionSlab& s) {
    scores_product(p, s, p.q, p.k, p.scale, scores);
    const double n = static_cast<double>(s.count * s.rows * score_stride(p));
    run(p.device(),
        {spec::AttentionSoftmax{.LOCAL = k.local, .WIDTH = k.width, .FLAGS = k.flags},
         simd ? "simd" : "shared"},
        {scores, keep.defined() ? keep : scores, p.bias.defined() ? p.bias : scores, scores, lse},
        slab_args(p, s), k.groups(s), {20 * n, 8 * n});
    query_product(p, s, scores, p.v, 1, o);
  });
}

void bias_gradient(const AttentionProblem& p, const AttentionSlab& s, const Tensor& ds, const Tensor& dbias) {
  const uint64_t n4 = static_cast<uint64_t>(p.heads * s.rows * score_stride(p) / 4);
  const double n = static_cast<double>(s.count * s.rows * score_stride(p));
  run(p.device(), spec::AttentionDbias{.LOCAL = 256}, {ds, dbias},
      args::AttentionDbiasArgs{u32(p.batch), u32(p.heads), u32(s.rows), u32(s.q0), u32(p.nq), u32(p.nk),
                               u32(score_stride(p) / 4)},
      groups_1d(ceil_div(n4, 256)), {n, 4 * n});
}

void backward(const AttentionProblem& p, const AttentionGradients& g) {
  const bool all_heads = g.dbias.defined();
  const Tensor keep = attention_keep(p), delta = attention_delta(p, g);
  const Tensor scores = scratch_for(p, 2, all_heads), ds = scratch_for(p, 2, all_heads);
  const RowKernel k = row_kernel(p, use_simd(p.device(), "matmul"));
  each_slab(p, 2, all_heads, [&](const AttentionSlab& s) {
    scores_product(p, s, p.q, p.k, p.scale, scores);
    scores_product(p, s, g.d_o, p.v, 1, ds);
    const double n = static_cast<double>(s.count * s.rows * score_stride(p));
    run(p.device(), spec::AttentionSoftmaxBwd{.LOCAL = k.local, .WIDTH = k.width, .FLAGS = k.flags},
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

const AttentionForm kComposedAttention{"composed", [](const AttentionProblem&) { return true; }, forward,
                                       backward};

}  // namespace vkflux
