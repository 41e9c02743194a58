// The end of an HKR layer: conditioner, disagreement of the branches, its mean, gate and blend.
#include "autograd/ops.h"
#include "autograd/ops/reduce.h"
#include "autograd/ops/rows.h"
#include "autograd/run.h"
#include "autograd/tape.h"

namespace vkflux {
namespace {

struct Blend {
  Tensor kernel, land, conditioner, alpha;  // as given: gradients go to these
  Tensor k, l, c, a;                        // bindable
  RowShape shape;
  args::HkrBlendArgs args;

  bool conditioned() const { return conditioner.defined(); }
  const Tensor& c_or_any() const { return c.defined() ? c : a; }
  Device& device() const { return k.device(); }
  Groups groups() const { return groups_1d(args.rows); }
  double numel() const { return static_cast<double>(args.rows) * static_cast<double>(args.cols); }
};

void backward(const Blend& b, const Tensor& gate, const Tensor& dy, Grads& g) {
  Device& device = b.device();
  const Tensor dk = Tensor::empty(device, b.kernel.shape()), dl = Tensor::empty(device, b.land.shape());
  const Tensor parts = Tensor::empty(device, {b.args.rows, 8}, DType::f32, MemoryClass::scratch);
  run(device,
      spec::HkrBlendBwd{
          .LANES = b.shape.lanes, .SIMD = b.shape.simd, .VEC4 = b.shape.vec4, .CONDITIONED = b.conditioned()},
      {b.k, b.l, b.c_or_any(), gate, dy, dk, dl, parts}, b.args, b.groups(),
      {20 * b.numel(), 20 * b.numel()});
  g.add(b.kernel, dk);
  g.add(b.land, dl);
  if (!g.wants(b.alpha) && !(b.conditioner.defined() && g.wants(b.conditioner))) return;
  const Tensor sums = op::sum_middle(parts, 1, b.args.rows, 8, 1);
  if (b.conditioner.defined()) g.add(b.conditioner, sums.slice(0, 0, 4).view(b.conditioner.shape()));
  g.add(b.alpha, sums.slice(0, 4, 1).view(b.alpha.shape()));
}

// [rows] and its mean over the tokens of each batch and head.
std::pair<Tensor, Tensor> disagreement(const Blend& b) {
  const Tensor d = Tensor::empty(b.device(), {b.args.rows}, DType::f32, MemoryClass::scratch);
  run(b.device(),
      spec::HkrDisagreement{
          .LANES = b.shape.lanes, .SIMD = b.shape.simd, .VEC4 = b.shape.vec4, .CONDITIONED = b.conditioned()},
      {b.k, b.l, b.c_or_any(), d}, b.args, b.groups(), {18 * b.numel(), 8 * b.numel()});
  const Tensor mean =
      op::sum_middle(d, b.args.rows / b.args.tokens, b.args.tokens, 1, 1 / static_cast<float>(b.args.tokens));
  return {d, mean};
}

}  // namespace

op::HkrBlend op::hkr_blend(const Tensor& kernel, const Tensor& land, const Tensor& conditioner,
                           const Tensor& alpha, const HkrBlendOptions& options) {
  expect("hkr_blend",
         kernel.defined() && land.defined() && kernel.dtype() == DType::f32 && land.dtype() == DType::f32 &&
             kernel.rank() == 4 && kernel.shape() == land.shape() && kernel.dim(3) > 0,
         "needs f32 branches [B, H, N, D]", {&kernel, &land});
  expect("hkr_blend",
         alpha.defined() && alpha.numel() == 1 && (!conditioner.defined() || conditioner.numel() == 4),
         "needs one alpha and four numbers of the conditioner", {&alpha, &conditioner});
  Tape* tape = Tape::wants({&kernel, &land, &conditioner, &alpha});
  const auto pause = Tape::pause();
  const int64_t tokens = kernel.dim(2), cols = kernel.dim(3), rows = kernel.numel() / cols;
  Blend b{kernel,           land, conditioner,       alpha, contiguous(kernel),
          contiguous(land), {},   contiguous(alpha), {},    {}};
  if (conditioner.defined()) b.c = contiguous(conditioner);
  b.shape = row_shape(b.device(), "hkr_blend", cols);
  b.args = {u32(rows), u32(cols), u32(tokens), options.alpha_max, options.gamma};
  const Tensor out = Tensor::empty(b.device(), kernel.shape());
  const Tensor gate = Tensor::empty(b.device(), {kernel.dim(0), kernel.dim(1), tokens});
  if (rows == 0) return {out, gate};
  Tensor d = b.a, mean = b.a;  // unused unless the gate is adaptive
  if (options.adaptive) std::tie(d, mean) = disagreement(b);
  run(b.device(),
      spec::HkrBlend{.LANES = b.shape.lanes,
                     .SIMD = b.shape.simd,
                     .VEC4 = b.shape.vec4,
                     .CONDITIONED = b.conditioned(),
                     .ADAPTIVE = options.adaptive},
      {b.k, b.l, b.c_or_any(), b.a, d, mean, out, gate}, b.args, b.groups(), {7 * b.numel(), 12 * b.numel()});
  if (tape) {
    tape->push("hkr_blend", {out}, [b, gate = gate.alias(), id = out.id()](Grads& g) {
      backward(b, gate, contiguous(g.of(id)), g);
    });
  }
  return {out, gate};
}

}  // namespace vkflux
