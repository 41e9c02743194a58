#include <algorithm>
#include <string>

#include "autograd/ops.h"
#include "autograd/ops/flat.h"
#include "autograd/run.h"
#include "autograd/tape.h"

namespace vkflux::op {
namespace {

constexpr uint32_t kSumLocal = 64, kApplyLocal = 256, kFinishLocal = 32;
constexpr uint32_t kMinChunk = 64, kMaxChunks = 256;

struct Plan {
  args::GroupNormArgs args;
  bool vec4;
  uint64_t units;  // vec4s or floats of x
  double values;
};

Plan plan_of(const Tensor& x, int groups, float eps, bool silu) {
  const uint32_t pixels = u32(x.dim(1) * x.dim(2));
  const uint32_t chunk = std::max<uint32_t>(kMinChunk, static_cast<uint32_t>(ceil_div(pixels, kMaxChunks)));
  Plan p{};
  p.args = {u32(x.dim(0)),  pixels,
            u32(x.dim(3)),  static_cast<uint32_t>(groups),
            chunk,          static_cast<uint32_t>(ceil_div(pixels, chunk)),
            silu ? 1u : 0u, eps};
  p.vec4 = x.dim(3) % 4 == 0;
  p.units = static_cast<uint64_t>(x.numel()) / (p.vec4 ? 4 : 1);
  p.values = static_cast<double>(x.numel());
  return p;
}

Groups sum_groups(const Plan& p) {
  const uint64_t units = p.args.channels / (p.vec4 ? 4 : 1);
  return groups_1d(ceil_div(p.args.batch * p.args.chunks * units, kSumLocal));
}

Tensor partial_sums(Device& device, const Plan& p) {
  return Tensor::empty(device, {p.args.batch, p.args.chunks, 2, p.args.channels}, DType::f32,
                       MemoryClass::scratch);
}

// The second pass, forward or backward, over the images in inputs[0].
void apply(const Plan& p, std::initializer_list<TensorRef> bindings, bool backward, Cost cost) {
  Device& device = (*bindings.begin())->device();
  uint32_t local = kApplyLocal;
  Groups groups = groups_1d(ceil_div(p.units, kApplyLocal));
  std::string variant = p.vec4 ? "vec4" : "scalar";
  if (use_wide(device, "group_norm", p.args.channels)) {
    variant = "wide";
    local = device.caps().subgroup_size;
    // A workgroup costs as much as a thousand elements.
    groups = {std::clamp<uint32_t>(u32(int64_t{p.args.pixels} * p.args.channels / 8192), 1, 65535),
              p.args.batch, 1};
  }
  if (backward) variant += "_bwd";
  run(device, {spec::GroupNorm{.LOCAL = local}, variant.c_str()}, bindings, p.args, groups, cost);
}

// Coefficients [B, 4, C] of the second pass: see group_norm_finish.comp.
Tensor statistics(const Plan& p, const Tensor& x, const Tensor& weight, const Tensor& bias) {
  Device& d = x.device();
  const Tensor sums = partial_sums(d, p);
  run(d, {spec::GroupNormSums{.LOCAL = kSumLocal}, p.vec4 ? "vec4" : "scalar"}, {x, sums}, p.args,
      sum_groups(p), {3 * p.values, 4 * p.values});
  Tensor coef = Tensor::empty(d, {p.args.batch, 4, p.args.channels});
  run(d, spec::GroupNormFinish{}, {sums, weight, bias, x, coef}, p.args,
      {static_cast<uint32_t>(ceil_div(p.args.batch * p.args.groups, kFinishLocal)), 1, 1},
      {0, 8.0 * static_cast<double>(sums.numel())});
  return coef;
}

void backward(Grads& g, const Plan& p, const Tensor& input, const Tensor& x, const Tensor& weight,
              const Tensor& bias, const Tensor& coef, const Tensor& dy) {
  Device& d = x.device();
  const Tensor sums = partial_sums(d, p);
  run(d, {spec::GroupNormSums{.LOCAL = kSumLocal}, p.vec4 ? "vec4_bwd" : "scalar_bwd"}, {x, dy, coef, sums},
      p.args, sum_groups(p), {12 * p.values, 8 * p.values});
  if (g.wants(weight) || g.wants(bias)) {
    const Tensor all = sum(
        sums.view({static_cast<int64_t>(p.args.batch) * p.args.chunks, 2, p.args.channels}), {0});  // [2, C]
    g.add(bias, contiguous(all.slice(0, 0, 1)).view({p.args.channels}));
    g.add(weight, contiguous(all.slice(0, 1, 1)).view({p.args.channels}));
  }
  if (!g.wants(input)) return;
  const Tensor factors = Tensor::empty(d, {p.args.batch, 3, p.args.channels});
  run(d, {spec::GroupNormFinish{}, "bwd"}, {sums, weight, coef, factors}, p.args,
      {static_cast<uint32_t>(ceil_div(p.args.batch * p.args.groups, kFinishLocal)), 1, 1},
      {0, 8.0 * static_cast<double>(sums.numel())});
  const Tensor dx = Tensor::empty(d, x.shape());
  apply(p, {x, coef, dy, factors, dx}, true, {14 * p.values, 12 * p.values});
  g.add(input, dx);
}

}  // namespace

Tensor group_norm(const Tensor& input, const Tensor& weight, const Tensor& bias, int groups, float eps,
                  bool silu) {
  expect("group_norm", input.rank() == 4 && groups > 0 && input.dim(3) % groups == 0,
         "x must be [B, H, W, C], C a multiple of groups", {&input});
  expect("group_norm", weight.numel() == input.dim(3) && bias.numel() == input.dim(3),
         "weight and bias must be [C]", {&input, &weight, &bias});
  const Tensor x = contiguous(input), w = contiguous(weight), b = contiguous(bias);
  const Plan p = plan_of(x, groups, eps, silu);
  Tensor y = Tensor::empty(x.device(), x.shape());
  if (x.numel() == 0) return y;
  const Tensor coef = statistics(p, x, w, b);
  apply(p, {x, coef, y}, false, {8 * p.values, 8 * p.values});
  if (Tape* t = Tape::wants({&input, &weight, &bias})) {
    t->push("group_norm", {y}, [input, x, weight, bias, coef, p, y = y.id()](Grads& g) {
      backward(g, p, input, x, contiguous(weight), bias, coef, contiguous(g.of(y)));
    });
  }
  return y;
}

}  // namespace vkflux::op
