// Attention on CPU implementations of Vulkan: as the composed form, products over slabs of scores, but every
// product reads panels, and those of scores write them: the softmax and its backward happen where a tile of
// scores is still in registers, or where it is fetched, and nothing is copied in between.
#include <algorithm>

#include "autograd/ops/attention_slabs.h"
#include "autograd/ops/binding.h"
#include "autograd/ops/matmul_panels.h"
#include "autograd/run.h"

namespace vkflux {
namespace {

uint32_t blocks(const AttentionProblem& p, int64_t rows, int64_t tile) {
  return u32(panel_blocks(p.device().caps(), rows, tile));
}

args::AttentionPanelArgs arguments(const AttentionProblem& p, const AttentionSlab& s, float scale) {
  const auto texels = [](int64_t k) { return u32(panel_k(k) / 4); };
  return {u32(s.rows),
          u32(s.q0),
          u32(s.bh0),
          u32(p.heads),
          u32(p.nq),
          u32(p.nk),
          u32(p.d / 4),
          u32(score_stride(p) / 4),
          blocks(p, s.rows, kPanelRows),
          blocks(p, p.nk, kPanelColumns),
          blocks(p, p.d, kPanelColumns),
          texels(s.rows),
          texels(p.nk),
          texels(p.d),
          u32(static_cast<int64_t>(ceil_div(static_cast<uint64_t>(p.nk), kPanelColumns))),
          scale};
}

// A slab's panel of scores along the keys, whose rows are queries, and one along the queries.
GemmMatrix by_query(const AttentionProblem& p, const AttentionSlab& s, const Tensor& x) {
  const int64_t ld = panel_k(p.nk) * p.device().caps().subgroup_size;
  return {x, ld, ld * blocks(p, s.rows, kPanelRows), 0};
}
GemmMatrix by_key(const AttentionProblem& p, const AttentionSlab& s, const Tensor& x) {
  const int64_t ld = panel_k(s.rows) * p.device().caps().subgroup_size;
  return {x, ld, ld * blocks(p, p.nk, kPanelColumns), 0};
}

using Layout = GemmMatrix (*)(const AttentionProblem&, const AttentionSlab&, const Tensor&);

// For the panel of any slab.
Tensor scratch_for(const AttentionProblem& p, int64_t buffers, Layout layout) {
  int64_t most = 0;
  each_slab(p, buffers, false,
            [&](const AttentionSlab& s) { most = std::max(most, s.count * layout(p, s, {}).batch_stride); });
  return Tensor::empty(p.device(), {most}, DType::f32, MemoryClass::scratch);
}

// Panels of a slab's queries or heads: as rows along D, or along queries or keys.
GemmMatrix panel_of_queries(const AttentionProblem& p, const AttentionSlab& s, const Tensor& x) {
  Gemm g;
  g.m = s.rows, g.k = p.d, g.batch = s.count, g.a = slab_queries(p, s, x);
  return pack_a(p.device(), g);
}
GemmMatrix panel_of_keys(const AttentionProblem& p, const AttentionSlab& s, const Tensor& x) {
  Gemm g;
  g.n = p.nk, g.k = p.d, g.batch = s.count, g.b = slab_keys(p, s, x);
  return pack_b(p.device(), g);
}
GemmMatrix panel_along(const AttentionProblem& p, const AttentionSlab& s, const GemmMatrix& x, int64_t k) {
  Gemm g;
  g.form = GemmForm::nn;
  g.n = p.d, g.k = k, g.batch = s.count, g.b = x;
  return pack_b(p.device(), g);
}

// Kernels of the panel product's tile.
KernelId scores_kernel(const AttentionProblem& p, const char* variant) {
  const uint32_t sg = p.device().caps().subgroup_size;
  return {spec::AttentionPanelScores{.SG = sg,
                                     .MA = u32(kPanelRows) / sg,
                                     .NV = u32(kPanelColumns) / 4 / sg,
                                     .MASKED = p.key_mask.defined()},
          variant};
}
KernelId values_kernel(const AttentionProblem& p) {
  const uint32_t sg = p.device().caps().subgroup_size;
  return spec::AttentionPanelValues{.SG = sg, .MA = u32(kPanelRows) / sg, .NV = u32(kPanelColumns) / 4 / sg};
}

Groups tiles(const AttentionSlab& s, int64_t columns) {
  return {u32(static_cast<int64_t>(ceil_div(static_cast<uint64_t>(s.rows), kPanelRows))),
          u32(static_cast<int64_t>(ceil_div(static_cast<uint64_t>(columns), kPanelColumns))), u32(s.count)};
}

// A product of scores with D, and the panels of scores that it reads or writes.
Cost cost(const AttentionProblem& p, const AttentionSlab& s, double panels) {
  const double pairs = static_cast<double>(s.count * s.rows * p.nk), d = static_cast<double>(p.d);
  const double operands = static_cast<double>(s.count * (s.rows + p.nk)) * d;
  return {2 * pairs * d, 4 * (operands + panels * pairs)};
}

void forward(const AttentionProblem& p, const Tensor& o, const Tensor& lse) {
  const Tensor keep = attention_keep(p), scores = scratch_for(p, 1, by_query);
  const int64_t key_tiles = static_cast<int64_t>(ceil_div(static_cast<uint64_t>(p.nk), kPanelColumns));
  GemmMatrix k, v;
  each_slab(p, 1, false, [&](const AttentionSlab& s) {
    if (s.q0 == 0) {
      k = panel_of_keys(p, s, p.k);
      v = panel_along(p, s, slab_keys(p, s, p.v), p.nk);
    }
    const GemmMatrix q = panel_of_queries(p, s, p.q);
    const args::AttentionPanelArgs a = arguments(p, s, p.scale);
    const int64_t queries = int64_t{a.q_blocks} * p.device().caps().subgroup_size;
    const Tensor most =
        Tensor::empty(p.device(), {s.count * key_tiles * queries}, DType::f32, MemoryClass::scratch);
    run(p.device(), scores_kernel(p, "scores"),
        {q.tensor, k.tensor, keep.defined() ? keep : q.tensor, scores, most}, a, tiles(s, p.nk),
        cost(p, s, 1));
    run(p.device(), values_kernel(p), {scores, v.tensor, most, o, lse}, a, tiles(s, p.d), cost(p, s, 1));
  });
}

// c, or after a head's first slab c +=, alpha panel x, where x holds panels along the same side.
void product(const AttentionProblem& p, int64_t count, const GemmMatrix& panel, int64_t k,
             const GemmMatrix& x, float alpha, const GemmMatrix& c, int64_t rows, bool accumulate) {
  Gemm g;
  g.m = rows, g.n = p.d, g.k = k, g.batch = count;
  g.a = panel, g.b = x, g.c = c;
  g.alpha = alpha, g.accumulate = accumulate;
  multiply_panels(p.device(), g);
}

void backward(const AttentionProblem& p, const AttentionGradients& g) {
  const Tensor keep = attention_keep(p), delta = attention_delta(p, g);
  const Tensor p_t = scratch_for(p, 3, by_key), ds_t = scratch_for(p, 3, by_key),
               ds = scratch_for(p, 3, by_query);
  GemmMatrix k, v, k_along;
  each_slab(p, 3, false, [&](const AttentionSlab& s) {
    if (s.q0 == 0) {
      k = panel_of_keys(p, s, p.k);
      v = panel_of_keys(p, s, p.v);
      k_along = panel_along(p, s, slab_keys(p, s, p.k), p.nk);
    }
    const GemmMatrix q = panel_of_queries(p, s, p.q), d_o = panel_of_queries(p, s, g.d_o);
    run(p.device(), scores_kernel(p, "probabilities"),
        {q.tensor, k.tensor, keep.defined() ? keep : q.tensor, g.lse, p_t}, arguments(p, s, p.scale),
        tiles(s, p.nk), cost(p, s, 1));
    run(p.device(), scores_kernel(p, "gradient"), {d_o.tensor, v.tensor, p_t, delta, ds_t, ds},
        arguments(p, s, 1), tiles(s, p.nk), cost(p, s, 3));
    const bool more = s.q0 > 0;
    if (g.dv.defined()) {
      const GemmMatrix x = panel_along(p, s, slab_queries(p, s, g.d_o), s.rows);
      product(p, s.count, by_key(p, s, p_t), s.rows, x, 1, slab_keys(p, s, g.dv), p.nk, more);
    }
    if (g.dq.defined()) {
      product(p, s.count, by_query(p, s, ds), p.nk, k_along, p.scale, slab_queries(p, s, g.dq), s.rows,
              false);
    }
    if (g.dk.defined()) {
      const GemmMatrix x = panel_along(p, s, slab_queries(p, s, p.q), s.rows);
      product(p, s.count, by_key(p, s, ds_t), s.rows, x, p.scale, slab_keys(p, s, g.dk), p.nk, more);
    }
  });
}

bool fits(const AttentionProblem& p) {
  const Caps& caps = p.device().caps();
  if (!caps.simd() || caps.subgroup_size > kPanelRows || p.bias.defined() || p.causal) return false;
  // What one binding must hold: a slab, with its rounding, and a head's panels.
  const int64_t most = max_binding_bytes(caps);
  const int64_t longest = (std::max(p.nq, p.nk) + 63) / 64 * 64, widest = (p.d + 63) / 64 * 64;
  if (most < (32 << 20) || longest * widest * 4 > most) return false;
  const std::string forced = forced_variant("attention");
  if (!forced.empty()) return forced == kPanelAttention.name;
  return p.device().device_class() == DeviceClass::cpu && p.nq >= 64 && p.nk >= 64;
}

}  // namespace

const AttentionForm kPanelAttention{"panels", fits, forward, backward};

}  // namespace vkflux
