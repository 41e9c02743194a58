#include "train/distill/student_trainer.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <span>

#include "autograd/ops.h"
#include "autograd/tape.h"
#include "vk/error.h"

namespace vkflux {
namespace {

constexpr double kNmseEps = 1e-8;

enum Group : size_t { kAlpha, kFeatures, kConditioner };

Group group_of(const std::string& name) {
  if (name == "alpha") return kAlpha;
  return name.starts_with("conditioner.") ? kConditioner : kFeatures;
}

/// term / (2 e^w) + w / 2
Tensor weighed(const Tensor& term, const Tensor& w) {
  const Tensor half = op::affine(op::unary(op::affine(w, -1), op::Unary::exp), 0.5f);
  return op::add(op::mul(term, half), op::affine(w, 0.5f));
}

/// What finish() reads, in this order.
enum Number : size_t { kLoss, kHuber, kCosine, kMse, kPower, kNorm, kAlphaAfter, kHuberAfter, kCosineAfter };
using Numbers = std::array<float, 9>;

}  // namespace

AdamWState::AdamWState(Device& device, const std::vector<std::pair<std::string, Shape>>& layout)
    : param(device, layout), grad(device, layout), m(device, layout), v(device, layout) {}

LossWeights::LossWeights(Device& device, float huber, float cosine)
    : state_(device, {{"log_var_huber", {}}, {"log_var_cosine", {}}}) {
  state_.param[0].copy_from_host(std::span<const float>(&huber, 1));
  state_.param[1].copy_from_host(std::span<const float>(&cosine, 1));
}

void LossWeights::step(const AdamWOptions& options, const Tensor& scale) {
  adamw(state_.param.flat(), state_.grad.flat(), state_.m.flat(), state_.v.flat(), options, ++steps_, scale);
}

StudentTrainer::StudentTrainer(Device& device, HkrLayer& layer, const StudentOptimizer& options)
    : layer_(layer), options_(options), state_(device, layout(parameters(layer))) {
  const std::vector<Param> params = parameters(layer);
  size_t reached = 0;
  for (size_t i = 0; i < params.size(); ++i) {
    names_.push_back(params[i].name);
    const size_t g = group_of(params[i].name);
    if (g < reached) {
      throw Error(ErrorCode::internal, fmt::format("{} is out of its optimiser group", params[i].name));
    }
    for (; reached < g; ++reached) starts_[reached + 1] = state_.param[i].offset();
    op::accumulate(state_.param[i], *params[i].tensor);
  }
  starts_[kGroups] = state_.param.flat().numel();
  place(params, state_.param);
}

Tensor StudentTrainer::group(const Arena& arena, size_t g) const {
  return arena.flat().slice(0, starts_[g], starts_[g + 1] - starts_[g]);
}

StudentTrainer::Terms StudentTrainer::forward(const TeacherSample& s, const LossWeights& weights) const {
  HkrCall call;
  call.q = s.q;
  call.k = s.k;
  call.v = s.v;
  call.key_mask = s.key_mask;
  call.conditioning = s.conditioning;
  call.text = s.text;
  call.sigma = s.sigma;
  call.cfg = s.cfg;
  Terms t;
  t.out = layer_.forward(call).out;
  t.huber = op::smooth_l1(t.out, s.teacher, static_cast<float>(options_.huber_beta));
  t.cosine = op::mean_all(op::cosine_similarity(t.out, s.teacher));
  t.loss = op::add(weighed(t.huber, weights.huber()), weighed(op::affine(t.cosine, -1, 1), weights.cosine()));
  return t;
}

PendingUpdate StudentTrainer::begin(const TeacherSample& sample, LossWeights& weights) {
  Profiler& profiler = sample.q.device().profiler();
  const ProfileScope whole(profiler, "update");
  state_.grad.flat().fill_zero();
  weights.state().grad.flat().fill_zero();
  Tape tape;
  Grads grads;
  const auto watch = [&](AdamWState& s) {
    for (size_t i = 0; i < s.param.size(); ++i) {
      tape.watch(s.param[i]);
      grads.collect(s.param[i], s.grad[i]);
    }
  };
  watch(state_);
  watch(weights.state());
  Terms terms;
  {
    const ProfileScope part(profiler, "forward");
    const auto scope = tape.record();
    terms = forward(sample, weights);
  }
  {
    const ProfileScope part(profiler, "backward");
    tape.backward({{terms.loss, Tensor()}}, grads);
  }
  const ProfileScope part(profiler, "optimiser");
  const auto untaped = Tape::pause();
  const Tensor norm = global_norm(state_.grad.flat());
  const Tensor power = op::mean_all(op::unary(sample.teacher, op::Unary::square)),
               mse = op::mse(terms.out, sample.teacher);
  const Tensor gate = clip_scale(norm, std::numeric_limits<float>::max(), terms.loss);
  const double clip = options_.grad_clip_norm;
  PendingUpdate pending{{}, terms.out, sample.sigma && std::isfinite(*sample.sigma)};
  apply(clip > 0 ? clip_scale(norm, static_cast<float>(clip), terms.loss) : gate, pending.conditioned);
  AdamWOptions adam = options_.adam;
  adam.lr = options_.learning_rate;
  weights.step(adam, gate);
  std::vector<Tensor> numbers;
  for (const Tensor& x : {terms.loss, terms.huber, terms.cosine, mse, power, norm, layer_.alpha,
                          weights.huber(), weights.cosine()}) {
    numbers.push_back(x.view({1}));
  }
  pending.numbers = norm.device().stream().begin_download(op::concat(numbers, 0).range());
  return pending;
}

UpdateResult StudentTrainer::finish(const PendingUpdate& pending, LossWeights& weights) {
  Device& device = state_.param.flat().device();
  Numbers n{};
  device.stream().finish(pending.numbers, std::as_writable_bytes(std::span(n)));
  UpdateResult r;
  r.loss = n[kLoss];
  r.huber = n[kHuber];
  r.cosine = n[kCosine];
  r.mse = n[kMse];
  r.nmse = r.mse / (static_cast<double>(n[kPower]) + kNmseEps);
  r.grad_norm = n[kNorm];
  r.alpha = n[kAlphaAfter];
  r.log_var_huber = n[kHuberAfter];
  r.log_var_cosine = n[kCosineAfter];
  r.out = pending.out;
  r.applied = std::isfinite(r.loss) && std::isfinite(r.grad_norm);
  if (!r.applied) {
    for (size_t g = 0; g < kGroups; ++g) steps_[g] -= g != kConditioner || pending.conditioned;
    weights.set_steps(weights.steps() - 1);
  }
  device.kernels().save();
  return r;
}

void StudentTrainer::apply(const Tensor& scale, bool conditioned) {
  for (size_t g = 0; g < kGroups; ++g) {
    if (g == kConditioner && !conditioned) continue;
    AdamWOptions adam;
    adam.lr =
        options_.learning_rate * (g == kAlpha ? options_.alpha_lr_multiplier : options_.phi_lr_multiplier);
    adamw(group(state_.param, g), group(state_.grad, g), group(state_.m, g), group(state_.v, g), adam,
          ++steps_[g], scale);
  }
}

}  // namespace vkflux
