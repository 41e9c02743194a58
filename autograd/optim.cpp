#include "autograd/optim.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "autograd/ops/flat.h"
#include "autograd/ops/rows.h"
#include "autograd/run.h"
#include "vk/error.h"

namespace vkflux {
namespace {

constexpr int64_t kSlot = 64;  // elements: 256 bytes

uint64_t units_of(const Tensor& x) {
  return ceil_div(static_cast<uint64_t>(x.numel()), 4);
}

void expect_flat(const char* op, std::initializer_list<const Tensor*> tensors) {
  const int64_t n = (*tensors.begin())->defined() ? (*tensors.begin())->numel() : 0;
  for (const Tensor* t : tensors) {
    expect(op, t->defined() && t->dtype() == DType::f32 && t->is_bindable() && t->numel() == n,
           "needs dense f32 tensors of equal length", tensors);
  }
}

void expect_one(const char* op, const Tensor& x) {
  expect(op, x.defined() && x.dtype() == DType::f32 && x.numel() == 1 && x.is_bindable(),
         "needs a one-element f32 tensor", {&x});
}

void blend(const Tensor& y, const Tensor& x, bool by_tensor, float keep, float take) {
  const uint64_t n = units_of(y);
  const double numel = static_cast<double>(y.numel());
  const FlatLaunch l = flat_launch(y.device(), "blend_inplace", y.numel());
  run(y.device(), {spec::BlendInplace{.LOCAL = l.local, .BY_TENSOR = by_tensor}, l.variant}, {y, x, y},
      args::BlendInplaceArgs{static_cast<uint32_t>(n), keep, take}, l.groups,
      {(by_tensor ? 1 : 3) * numel, (by_tensor ? 8 : 12) * numel});
}

}  // namespace

Arena::Arena(Device& device, const std::vector<std::pair<std::string, Shape>>& layout, MemoryClass cls) {
  int64_t total = 0;
  std::vector<int64_t> starts;
  for (const auto& [name, shape] : layout) {
    starts.push_back(total);
    if (__builtin_add_overflow(total, (shape.numel() + kSlot - 1) / kSlot * kSlot, &total)) {
      throw Error(ErrorCode::invalid_argument, fmt::format("{}: an arena can't hold {}", name, shape.str()));
    }
  }
  flat_ = Tensor::zeros(device, {total}, DType::f32, cls);
  for (size_t i = 0; i < layout.size(); ++i) {
    tensors_.push_back(flat_.slice(0, starts[i], layout[i].second.numel()).view(layout[i].second));
  }
}

void adamw(const Tensor& param, const Tensor& grad, const Tensor& m, const Tensor& v,
           const AdamWOptions& options, int64_t step, const Tensor& grad_scale, const Tensor& decay_mask) {
  expect_flat("adamw", {&param, &grad, &m, &v});
  if (step < 1) {
    throw Error(ErrorCode::invalid_argument, fmt::format("adamw: steps count from 1 (given {})", step));
  }
  if (grad_scale.defined()) expect_one("adamw", grad_scale);
  if (decay_mask.defined()) {
    expect("adamw",
           decay_mask.dtype() == DType::u8 && decay_mask.is_bindable() &&
               decay_mask.numel() * kSlot >= param.numel(),
           "needs one u8 of the decay mask per 64 elements", {&decay_mask, &param});
  }
  const double t = static_cast<double>(step);
  const double correction1 = 1 - std::pow(options.beta1, t);
  const double correction2 = 1 - std::pow(options.beta2, t);
  args::AdamWArgs a{};
  a.units = static_cast<uint32_t>(units_of(param));
  a.beta1 = static_cast<float>(options.beta1);
  a.beta2 = static_cast<float>(options.beta2);
  a.rest1 = static_cast<float>(1 - options.beta1);
  a.rest2 = static_cast<float>(1 - options.beta2);
  a.eps = static_cast<float>(options.eps);
  a.step_size = static_cast<float>(options.lr / correction1);
  a.inv_sqrt_correction2 = static_cast<float>(1 / std::sqrt(correction2));
  a.decay = static_cast<float>(1 - options.lr * options.weight_decay);
  const double n = static_cast<double>(param.numel());
  const FlatLaunch l = flat_launch(param.device(), "adamw", param.numel());
  run(param.device(),
      {spec::Adamw{.LOCAL = l.local, .HAS_SCALE = grad_scale.defined(), .HAS_MASK = decay_mask.defined()},
       l.variant},
      {param, grad, m, v, grad_scale.defined() ? grad_scale : grad, decay_mask.defined() ? decay_mask : grad,
       param, m, v},
      a, l.groups, {14 * n, 28 * n});
}

void ema_update(const Tensor& ema, const Tensor& param, float decay) {
  expect_flat("ema_update", {&ema, &param});
  blend(ema, param, false, decay, static_cast<float>(1 - static_cast<double>(decay)));
}

void scale_inplace(const Tensor& x, const Tensor& scale) {
  expect_flat("scale_inplace", {&x});
  expect_one("scale_inplace", scale);
  blend(x, scale, true, 0, 0);
}

Tensor global_norm(const Tensor& grad) {
  expect_flat("global_norm", {&grad});
  Device& device = grad.device();
  const Tensor norm = Tensor::zeros(device, {});
  const uint64_t units = units_of(grad);
  if (units == 0) return norm;
  const RowShape shape = row_shape(device, "global_norm", 1024);
  const uint64_t groups = std::clamp<uint64_t>(units / (uint64_t{shape.lanes} * 16), 1, 1024);
  const uint64_t per_group = ceil_div(units, groups);
  const Tensor partial = Tensor::empty(device, {static_cast<int64_t>(ceil_div(units, per_group))}, DType::f32,
                                       MemoryClass::scratch);
  const double n = static_cast<double>(grad.numel());
  run(device, spec::SumSquares{.LANES = shape.lanes, .SIMD = shape.simd, .VEC4 = 1, .FINISH = 0},
      {grad, partial}, args::SumSquaresArgs{u32(grad.numel()), static_cast<uint32_t>(per_group)},
      groups_1d(static_cast<uint64_t>(partial.numel())), {2 * n, 4 * n});
  run(device, spec::SumSquares{.LANES = shape.lanes, .SIMD = shape.simd, .VEC4 = 1, .FINISH = 1},
      {partial, norm}, args::SumSquaresArgs{u32(partial.numel()), static_cast<uint32_t>(units_of(partial))},
      {1, 1, 1}, {static_cast<double>(partial.numel()), 4.0 * static_cast<double>(partial.numel())});
  return norm;
}

Tensor clip_scale(const Tensor& norm, float max_norm, const Tensor& loss) {
  expect_one("clip_scale", norm);
  if (loss.defined()) expect_one("clip_scale", loss);
  const Tensor scale = Tensor::empty(norm.device(), {});
  run(norm.device(), spec::ClipScale{}, {norm, loss.defined() ? loss : norm, scale},
      args::ClipScaleArgs{max_norm}, {1, 1, 1}, {2, 12});
  return scale;
}

}  // namespace vkflux
