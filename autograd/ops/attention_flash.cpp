// Attention without a matrix of scores (Dao, "FlashAttention-2", 2023): forward walks over the keys with an
// online softmax, backward recomputes the probabilities from the log-sum-exp in one pass per side: dq by
// blocks of queries, dk and dv by blocks of keys, so that no sum needs atomics.
#include <algorithm>
#include <array>

#include "autograd/ops/attention_forms.h"
#include "autograd/run.h"

namespace vkflux {
namespace {

// Rows and columns as in shaders/common/flash_attention.glsl.
struct Tiling {
  int64_t max_d;
  uint32_t tx, ty, tm, tn;
  bool together = true;  // dk and dv in one pass
  uint32_t step4 = 4;    // vec4 of D in one step of a score product

  uint32_t invocations() const { return tx * ty; }
  uint32_t rows() const { return ty * tm; }
  uint32_t vectors(int64_t d) const { return static_cast<uint32_t>(ceil_div(u32(d / 4), tx)); }
  uint32_t shared_bytes(int64_t d) const {
    const uint32_t scores = (rows() + tx * tn) * (step4 + 1);
    const uint32_t results = tx * (rows() / 4 + 1) + tx * vectors(d) * tx;
    return 16 * std::max(scores, results);
  }
};
using Table = std::array<Tiling, 3>;

// An invocation of the wide tables holds about 32 scores and 64 elements of the results, which needs 110 to
// 180 registers; of the lean ones half as much, for compilers that have 128.
constexpr Table kWideForward{{{32, 8, 16, 4, 8}, {128, 16, 8, 8, 4}, {256, 16, 8, 4, 4}}};
constexpr Table kWideBackward{{{32, 8, 16, 4, 4}, {128, 16, 16, 4, 4}, {256, 16, 8, 4, 4, false}}};
constexpr Table kLeanForward{{{32, 8, 16, 4, 4}, {128, 16, 16, 4, 2}, {256, 16, 8, 4, 2}}};
constexpr Table kLeanBackward{{{64, 16, 16, 4, 2}, {128, 16, 16, 4, 2, false}, {256, 16, 8, 4, 2, false}}};

const Tiling* tiling(const AttentionProblem& p, const Table& wide, const Table& lean) {
  const DeviceClass c = p.device().device_class();
  const Table& table = c == DeviceClass::nvidia || c == DeviceClass::amd ? wide : lean;
  const auto* row = std::find_if(table.begin(), table.end(), [&](const Tiling& t) { return p.d <= t.max_d; });
  return row == table.end() ? nullptr : row;
}
const Tiling* forward_tiling(const AttentionProblem& p) {
  return tiling(p, kWideForward, kLeanForward);
}
const Tiling* backward_tiling(const AttentionProblem& p) {
  return tiling(p, kWideBackward, kLeanBackward);
}

bool runs_on(const Caps& caps, const Tiling* t, int64_t d) {
  return t && t->invocations() <= caps.max_invocations && t->shared_bytes(d) <= caps.max_shared_memory;
}

bool fits(const AttentionProblem& p) {
  const bool suits =
      p.device().device_class() != DeviceClass::cpu || forced_variant("attention") == kFlashAttention.name;
  return suits && flash_fits(p);
}

enum Wanted : uint32_t { kWantsDk = 4, kWantsDv = 8 };

// The three kernels have the same constants (shaders/common/flash_attention.glsl).
template <class Spec>
Spec kernel(const Tiling& t, const AttentionProblem& p, uint32_t wanted) {
  const uint32_t flags = (p.key_mask.defined() ? 1u : 0u) | (p.causal ? 2u : 0u) | wanted;
  return {.LOCAL = t.invocations(),
          .TX = t.tx,
          .TM = t.tm,
          .TN = t.tn,
          .NV = t.vectors(p.d),
          .BD4 = t.step4,
          .FLAGS = flags};
}

args::FlashAttentionArgs arguments(const AttentionProblem& p) {
  return {u32(p.batch * p.heads), u32(p.heads), u32(p.nq), u32(p.nk), u32(p.d / 4), p.scale};
}

Groups groups(const AttentionProblem& p, const Tiling& t, int64_t rows) {
  return groups_1d(ceil_div(static_cast<uint64_t>(rows), t.rows()) *
                   static_cast<uint64_t>(p.batch * p.heads));
}

const Tensor& mask_or(const AttentionProblem& p, const Tensor& other) {
  return p.key_mask.defined() ? p.key_mask : other;
}

void forward(const AttentionProblem& p, const Tensor& o, const Tensor& lse) {
  const Tiling& t = *forward_tiling(p);
  run(p.device(), kernel<spec::FlashAttention>(t, p, 0), {p.q, p.k, p.v, mask_or(p, p.q), o, lse},
      arguments(p), groups(p, t, p.nq), attention_cost(p, 2, 2, 2));
}

void key_pass(const AttentionProblem& p, const AttentionGradients& g, const Tensor& delta, uint32_t wanted) {
  const Tiling& t = *backward_tiling(p);
  const Tensor dk = wanted & kWantsDk ? g.dk : g.dv, dv = wanted & kWantsDv ? g.dv : g.dk;
  const double products = wanted == kWantsDv ? 2 : wanted == kWantsDk ? 3 : 4;
  run(p.device(), kernel<spec::FlashAttentionDkv>(t, p, wanted),
      {p.q, p.k, p.v, g.d_o, mask_or(p, p.q), g.lse, delta, dk, dv}, arguments(p), groups(p, t, p.nk),
      attention_cost(p, products, 2, 4));
}

void backward(const AttentionProblem& p, const AttentionGradients& g) {
  const Tensor delta = attention_delta(p, g);
  if (g.dq.defined()) {
    const Tiling& t = *backward_tiling(p);
    run(p.device(), kernel<spec::FlashAttentionDq>(t, p, 0),
        {p.q, p.k, p.v, g.d_o, mask_or(p, p.q), g.lse, delta, g.dq}, arguments(p), groups(p, t, p.nq),
        attention_cost(p, 3, 3, 2));
  }
  const uint32_t wanted = (g.dk.defined() ? kWantsDk : 0u) | (g.dv.defined() ? kWantsDv : 0u);
  if (wanted && (wanted != (kWantsDk | kWantsDv) || backward_tiling(p)->together)) {
    key_pass(p, g, delta, wanted);
  } else if (wanted) {
    key_pass(p, g, delta, kWantsDk);
    key_pass(p, g, delta, kWantsDv);
  }
}

}  // namespace

bool flash_fits(const AttentionProblem& p) {
  const Caps& caps = p.device().caps();
  const uint64_t most = std::max(p.q.bytes(), p.k.bytes());
  return !p.bias.defined() && most <= caps.max_storage_buffer_range &&
         runs_on(caps, forward_tiling(p), p.d) && runs_on(caps, backward_tiling(p), p.d);
}

// Work of `products` products over the visible pairs; bytes when every row is read or written once.
Cost attention_cost(const AttentionProblem& p, double products, double query_tensors, double key_tensors) {
  const double nq = static_cast<double>(p.nq), nk = static_cast<double>(p.nk);
  const double both = static_cast<double>(p.batch * p.heads * p.d);
  const double pairs = p.causal ? (nq >= nk ? nk * (nk + 1) / 2 : nq * (nk - (nq - 1) / 2)) : nq * nk;
  return {2 * products * both * pairs, 4 * both * (query_tensors * nq + key_tensors * nk)};
}

const AttentionForm kFlashAttention{"flash", fits, forward, backward};

}  // namespace vkflux
