// Flash attention on cooperative matrices (shaders/flash_attention_coop.comp): forward with f16 factors;
// backward is that of attention_flash.cpp.
#include <algorithm>
#include <string>

#include "autograd/ops/attention_forms.h"
#include "autograd/ops/matmul_tiles.h"
#include "autograd/run.h"

namespace vkflux {
namespace {

constexpr int64_t kRows = 64, kKeys = 32;  // of a workgroup, and of a step
constexpr int64_t kMostD = 128;            // results of longer heads don't fit the registers

uint32_t shared_bytes(int64_t d) {
  const int64_t operand = 2 * d + 16, weights = 2 * kKeys + 16, scores = 4 * kKeys + 16;  // bytes of a row
  return static_cast<uint32_t>(std::max(2 * kKeys, kRows) * operand + kRows * (weights + scores) + 4 * kKeys);
}

// The largest shape that queries, keys and head can be made of, and whose rows a subgroup can share evenly.
const MatrixShape* shape_for(const Caps& caps, uint32_t subgroup, int64_t d) {
  const MatrixShape* best = nullptr;
  for (const MatrixShape& s : caps.f16_shapes) {
    const bool rows = kRows % s.m == 0 && subgroup % s.m == 0 && kKeys / 4 % (subgroup / s.m) == 0;
    const bool columns =
        s.n % 8 == 0 && s.k % 8 == 0 && kKeys % s.n == 0 && kKeys % s.k == 0 && d % s.n == 0 && d % s.k == 0;
    const int64_t local = rows ? subgroup * kRows / s.m : 0;
    if (!rows || !columns || local > caps.max_invocations || kKeys * d / 4 % local != 0) continue;
    if (!best || s.m * s.n * s.k > best->m * best->n * best->k) best = &s;
  }
  return best;
}

bool fits(const AttentionProblem& p) {
  const Caps& caps = p.device().caps();
  const std::string forced = forced_variant("attention");
  // Intel's compiler has too few registers: it spills at every head size.
  const DeviceClass c = p.device().device_class();
  const bool suits =
      forced.empty() ? c == DeviceClass::nvidia || c == DeviceClass::amd : forced == kCoopAttention.name;
  return suits && p.f16 && p.d <= kMostD && caps.subgroup_shuffle && flash_fits(p) &&
         p.device().kernels().available("flash_attention_coop", "f16") &&
         shared_bytes(p.d) <= caps.max_shared_memory && shape_for(caps, coop_subgroup(caps), p.d);
}

void forward(const AttentionProblem& p, const Tensor& o, const Tensor& lse) {
  const Caps& caps = p.device().caps();
  const uint32_t subgroup = coop_subgroup(caps);
  const MatrixShape& s = *shape_for(caps, subgroup, p.d);
  const uint32_t flags = (p.key_mask.defined() ? 1u : 0u) | (p.causal ? 2u : 0u);
  const spec::FlashAttentionCoop constants{.LOCAL = subgroup * u32(kRows) / s.m,
                                           .SG = subgroup,
                                           .TM = s.m,
                                           .TN = s.n,
                                           .TK = s.k,
                                           .D4 = u32(p.d / 4),
                                           .BC = u32(kKeys),
                                           .FLAGS = flags};
  run(p.device(), {constants, "f16", subgroup},
      {p.q, p.k, p.v, p.key_mask.defined() ? p.key_mask : p.q, o, lse, saturation_place(p.device())},
      args::FlashAttentionArgs{u32(p.batch * p.heads), u32(p.heads), u32(p.nq), u32(p.nk), u32(p.d / 4),
                               p.scale},
      groups_1d(ceil_div(static_cast<uint64_t>(p.nq), kRows) * static_cast<uint64_t>(p.batch * p.heads)),
      attention_cost(p, 2, 2, 2));
}

}  // namespace

const AttentionForm kCoopAttention{
    "coop", fits, forward,
    [](const AttentionProblem& p, const AttentionGradients& g) { kFlashAttention.backward(p, g); }};

}  // namespace vkflux
