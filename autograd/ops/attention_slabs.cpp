#include "autograd/ops/attention_slabs.h"

#include <algorithm>

#include "autograd/ops/binding.h"
#include "autograd/run.h"

namespace vkflux {
namespace {

constexpr int64_t kMaxScratch = 16 << 20;  // bytes of scores at once, all buffers together
constexpr int64_t kMaxBatch = 32768;       // workgroups in z

}  // namespace

int64_t score_stride(const AttentionProblem& p) {
  return (p.nk + 3) / 4 * 4;
}

void each_slab(const AttentionProblem& p, int64_t buffers, bool all_heads,
               const std::function<void(const AttentionSlab&)>& f) {
  const int64_t floats = std::min(kMaxScratch / buffers, max_binding_bytes(p.device().caps())) / 4,
                ld = score_stride(p), bh = p.batch * p.heads;
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

Tensor attention_keep(const AttentionProblem& p) {
  if (!p.key_mask.defined()) return {};
  const Tensor keep = Tensor::empty(p.device(), {p.batch, score_stride(p)}, DType::f32, MemoryClass::scratch);
  const uint64_t n4 = static_cast<uint64_t>(keep.numel() / 4);
  run(p.device(), spec::AttentionKeep{.LOCAL = 256}, {p.key_mask, keep},
      args::AttentionKeepArgs{u32(p.batch), u32(p.nk), u32(score_stride(p) / 4)},
      groups_1d(ceil_div(n4, 256)), {0, 5.0 * static_cast<double>(keep.numel())});
  return keep;
}

Tensor attention_delta(const AttentionProblem& p, const AttentionGradients& g) {
  const int64_t rows = p.batch * p.heads * p.nq;
  const Tensor delta = Tensor::empty(p.device(), {rows}, DType::f32, MemoryClass::scratch);
  const double n = static_cast<double>(rows * p.d);
  run(p.device(), spec::AttentionDelta{.LOCAL = 256}, {g.o, g.d_o, delta},
      args::AttentionDeltaArgs{u32(rows), u32(p.d / 4)},
      groups_1d(ceil_div(static_cast<uint64_t>(rows), 256)), {2 * n, 8 * n});
  return delta;
}

GemmMatrix slab_queries(const AttentionProblem& p, const AttentionSlab& s, const Tensor& x) {
  return {x, p.d, p.nq * p.d, (s.bh0 * p.nq + s.q0) * p.d};
}

GemmMatrix slab_keys(const AttentionProblem& p, const AttentionSlab& s, const Tensor& x) {
  return {x, p.d, p.nk * p.d, s.bh0 * p.nk * p.d};
}

}  // namespace vkflux
