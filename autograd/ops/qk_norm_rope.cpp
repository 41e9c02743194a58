#include <algorithm>
#include <bit>
#include <utility>

#include "autograd/ops.h"
#include "autograd/ops/flat.h"
#include "autograd/ops/rows.h"
#include "autograd/run.h"
#include "autograd/tape.h"

namespace vkflux::op {
namespace {

/// What all kernels of one call share.
struct Joint {
  int64_t batch, heads, tokens, head_dim;
  uint32_t unit;  // numbers an invocation handles at a time
  Tensor rope;    // dense, or undefined
  uint32_t rope_batch;
  float eps;
};

/// One stream of tokens: dense inputs, and what forward keeps for backward.
struct Part {
  Tensor qkv, q_scale, k_scale, rstd;
  int64_t first, tokens;
};

struct Team {
  uint32_t local, size;
};

Team team_of(Device& device, const Joint& j) {
  const uint32_t units = u32(j.head_dim) / j.unit;
  const bool simd = use_simd(device, "qk_norm_rope");
  const uint32_t local = simd ? std::min(device.caps().subgroup_size * 8, 256u) : 256;
  return {local, simd ? 1 : std::min(std::bit_floor(units), 16u)};
}

Groups team_groups(const Joint& j, const Part& p, const Team& team) {
  const uint64_t items = static_cast<uint64_t>(p.tokens * j.heads);
  return {static_cast<uint32_t>(ceil_div(items, team.local / team.size)), u32(j.batch), 1};
}

args::QkNormRopeArgs args_of(const Joint& j, const Part& p) {
  return {u32(p.tokens), u32(p.first), u32(j.tokens), u32(j.heads), u32(j.head_dim), j.rope_batch, j.eps};
}

double numel(const Part& p) {
  return static_cast<double>(p.qkv.numel());
}

void forward(const Joint& j, const Part& p, const Qkv& out) {
  Device& device = p.qkv.device();
  if (p.tokens <= 65535 && use_wide(device, "qk_norm_rope", j.head_dim)) {
    const uint32_t lanes = device.caps().subgroup_size, groups = u32(j.head_dim / 8);
    const uint32_t size = std::min(lanes, std::bit_floor(groups));
    run(device,
        {spec::QkNormRope{.LOCAL = lanes,
                          .UNIT = j.unit,
                          .TEAM = size,
                          .HAS_ROPE = j.rope.defined(),
                          .PER = (groups + size - 1) / size},
         "wide"},
        {p.qkv, p.q_scale, p.k_scale, j.rope.defined() ? j.rope : p.qkv, out.q, out.k, out.v, p.rstd},
        args_of(j, p), {u32(p.tokens), u32(j.batch), 1}, {8 * numel(p), 8 * numel(p)});
    return;
  }
  const Team team = team_of(device, j);
  run(device,
      spec::QkNormRope{
          .LOCAL = team.local, .UNIT = j.unit, .TEAM = team.size, .HAS_ROPE = j.rope.defined(), .PER = 1},
      {p.qkv, p.q_scale, p.k_scale, j.rope.defined() ? j.rope : p.qkv, out.q, out.k, out.v, p.rstd},
      args_of(j, p), team_groups(j, p, team), {8 * numel(p), 8 * numel(p)});
}

Tensor backward_qkv(const Joint& j, const Part& p, const Qkv& d) {
  Device& device = p.qkv.device();
  const Tensor dqkv = Tensor::empty(device, p.qkv.shape());
  const Team team = team_of(device, j);
  run(device,
      spec::QkNormRopeBwd{
          .LOCAL = team.local, .UNIT = j.unit, .TEAM = team.size, .HAS_ROPE = j.rope.defined()},
      {p.qkv, p.q_scale, p.k_scale, j.rope.defined() ? j.rope : p.qkv, d.q, d.k, d.v, p.rstd, dqkv},
      args_of(j, p), team_groups(j, p, team), {16 * numel(p), 12 * numel(p)});
  return dqkv;
}

std::pair<Tensor, Tensor> backward_scales(const Joint& j, const Part& p, const Qkv& d) {
  Device& device = p.qkv.device();
  const uint32_t units = u32(j.head_dim) / j.unit;
  const bool cpu = device.device_class() == DeviceClass::cpu;
  const uint32_t least = cpu ? device.caps().subgroup_size : 32;
  const uint32_t local = std::clamp(std::bit_ceil(units), std::min(least, 256u), 256u);
  const int64_t rows = j.batch * p.tokens;
  const int64_t chunks = std::clamp<int64_t>(rows, 1, cpu ? 32 : 512);
  const int64_t per_chunk = std::max<int64_t>((rows + chunks - 1) / chunks, 1);
  const int64_t used = std::max<int64_t>((rows + per_chunk - 1) / per_chunk, 1);
  const Tensor q = Tensor::empty(device, {used, j.head_dim}, DType::f32, MemoryClass::scratch);
  const Tensor k = Tensor::empty(device, {used, j.head_dim}, DType::f32, MemoryClass::scratch);
  run(device, spec::QkScaleGrad{.LOCAL = local, .UNIT = j.unit, .HAS_ROPE = j.rope.defined()},
      {p.qkv, j.rope.defined() ? j.rope : p.qkv, d.q, d.k, p.rstd, q, k},
      args::QkScaleGradArgs{u32(j.batch), u32(p.tokens), u32(p.first), u32(j.tokens), u32(j.heads),
                            u32(j.head_dim), j.rope_batch, u32(per_chunk)},
      {static_cast<uint32_t>(ceil_div(units, local)), u32(used), 1}, {6 * numel(p), 6 * numel(p)});
  const auto total = [&](const Tensor& partial) {
    return column_sums(partial, {}, {}, 1, used, j.head_dim, true, false).plain.view({j.head_dim});
  };
  return {total(q), total(k)};
}

bool rope_fits(const Tensor& table, int64_t batch, int64_t tokens, int64_t head_dim) {
  return table.dtype() == DType::f32 && table.rank() == 4 && (table.dim(0) == 1 || table.dim(0) == batch) &&
         table.dim(1) == tokens && table.dim(2) * 2 == head_dim && table.dim(3) == 2;
}

Joint joint_of(const std::vector<QkvPart>& parts, const Tensor& table, int64_t heads, float eps) {
  expect("qk_norm_rope", !parts.empty() && parts[0].qkv.defined() && parts[0].qkv.rank() == 3 && heads > 0,
         "needs at least one part qkv[B, n, 3 H D]", {});
  const Tensor& first = parts[0].qkv;
  Joint j{first.dim(0), heads, 0, first.dim(2) / (3 * heads), 4, {}, 0, eps};
  j.unit = j.head_dim % 4 == 0 ? 4 : 2;
  for (const QkvPart& p : parts) {
    expect("qk_norm_rope",
           p.qkv.defined() && p.qkv.dtype() == DType::f32 && p.qkv.rank() == 3 && p.qkv.dim(0) == j.batch &&
               p.qkv.dim(2) == 3 * heads * j.head_dim && j.head_dim > 0 && j.head_dim % 2 == 0 &&
               p.q_scale.defined() && p.q_scale.dtype() == DType::f32 &&
               p.q_scale.shape() == Shape{j.head_dim} && p.k_scale.defined() &&
               p.k_scale.dtype() == DType::f32 && p.k_scale.shape() == Shape{j.head_dim},
           "needs f32 qkv[B, n, 3 H D] with an even D, q_scale[D] and k_scale[D]",
           {&p.qkv, &p.q_scale, &p.k_scale});
    j.tokens += p.qkv.dim(1);
  }
  if (table.defined()) {
    expect("qk_norm_rope", rope_fits(table, j.batch, j.tokens, j.head_dim),
           "needs an f32 rotation table [1 or B, N, D/2, 2] over all tokens", {&table, &first});
    j.rope = dense(table);
    j.rope_batch = table.dim(0) > 1 ? 1 : 0;
  }
  return j;
}

void backward(const Joint& j, const std::vector<QkvPart>& inputs, const std::vector<Part>& parts,
              const Qkv& d, Grads& g) {
  for (size_t i = 0; i < parts.size(); ++i) {
    const QkvPart& in = inputs[i];
    if (g.wants(in.qkv)) g.add(in.qkv, backward_qkv(j, parts[i], d));
    if (g.wants(in.q_scale) || g.wants(in.k_scale)) {
      const auto [dq_scale, dk_scale] = backward_scales(j, parts[i], d);
      g.add(in.q_scale, dq_scale);
      g.add(in.k_scale, dk_scale);
    }
  }
}

Tensor rotate(const Tensor& x, const Tensor& table, bool inverse) {
  const Tensor y = Tensor::empty(x.device(), x.shape());
  const uint32_t unit = x.dim(3) % 4 == 0 ? 4 : 2, local = 64;
  const uint32_t units = u32(x.dim(2) * x.dim(3)) / unit;
  const double n = static_cast<double>(x.numel());
  run(x.device(), spec::Rope{.LOCAL = local, .UNIT = unit, .INVERSE = inverse}, {x, table, y},
      args::RopeArgs{units, u32(x.dim(1)), table.dim(0) > 1 ? 1u : 0u},
      {static_cast<uint32_t>(ceil_div(units, local)), u32(x.dim(1)), u32(x.dim(0))}, {3 * n, 12 * n});
  return y;
}

}  // namespace

Qkv qk_norm_rope(const std::vector<QkvPart>& inputs, const Tensor& rope, int64_t heads, float eps) {
  const Joint j = joint_of(inputs, rope, heads, eps);
  Device& device = inputs[0].qkv.device();
  const Shape shape{j.batch, heads, j.tokens, j.head_dim};
  const Qkv out{Tensor::empty(device, shape), Tensor::empty(device, shape), Tensor::empty(device, shape)};
  std::vector<Part> parts;
  int64_t first = 0;
  Tape* tape = nullptr;
  for (const QkvPart& in : inputs) {
    const int64_t tokens = in.qkv.dim(1);
    parts.push_back({dense(in.qkv), dense(in.q_scale), dense(in.k_scale),
                     Tensor::empty(device, {j.batch, tokens, heads, 2}), first, tokens});
    forward(j, parts.back(), out);
    first += tokens;
    if (Tape* t = Tape::wants({&in.qkv, &in.q_scale, &in.k_scale})) tape = t;
  }
  if (tape) {
    tape->push("qk_norm_rope", {out.q, out.k, out.v},
               [=, q = out.q.id(), k = out.k.id(), v = out.v.id()](Grads& g) {
                 backward(j, inputs, parts, {dense(g.of(q)), dense(g.of(k)), dense(g.of(v))}, g);
               });
  }
  return out;
}

Tensor rope(const Tensor& x_in, const Tensor& table_in) {
  expect("rope",
         x_in.defined() && x_in.rank() == 4 && x_in.dtype() == DType::f32 && x_in.dim(3) % 2 == 0 &&
             table_in.defined() && rope_fits(table_in, x_in.dim(0), x_in.dim(2), x_in.dim(3)),
         "needs f32 x[B, H, N, D] with an even D and table[1 or B, N, D/2, 2]", {&x_in, &table_in});
  const Tensor table = dense(table_in);
  const Tensor y = rotate(dense(x_in), table, false);
  if (Tape* t = Tape::wants({&x_in})) {
    t->push("rope", {y}, [=, id = y.id()](Grads& g) { g.add(x_in, rotate(dense(g.of(id)), table, true)); });
  }
  return y;
}

}  // namespace vkflux::op
