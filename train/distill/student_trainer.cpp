#include "train/distill/student_trainer.h"

#include <array>
#include <cmath>
#include <span>

#include "autograd/ops.h"
#include "autograd/tape.h"

namespace vkflux {
namespace {

constexpr double kNmseEps = 1e-8;

enum Group : size_t { kAlpha, kFeatures, kConditioner };

Group group_of(const std::string& name) {
  if (name == "alpha") return kAlpha;
  return name.starts_with("conditioner.") ? kConditioner : kFeatures;
}

std::vector<size_t> groups(const std::vector<Param>& params) {
  std::vector<size_t> out;
  for (const Param& p : params) out.push_back(group_of(p.name));
  return out;
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

LossWeights::LossWeights(Device& device, float huber, float cosine)
    : huber_(Tensor::full(device, {}, huber)),
      cosine_(Tensor::full(device, {}, cosine)),
      optimiser_(device, {{"log_var_huber", &huber_}, {"log_var_cosine", &cosine_}}) {}

StudentTrainer::StudentTrainer(Device& device, HkrLayer& layer, const StudentOptimizer& options)
    : layer_(layer),
      options_(options),
      optimiser_(device, trainables(parameters(layer)), {false, false, groups(parameters(layer))}) {}

std::array<int64_t, StudentTrainer::kGroups> StudentTrainer::steps() const {
  return {optimiser_.steps(kAlpha), optimiser_.steps(kFeatures), optimiser_.steps(kConditioner)};
}

void StudentTrainer::set_steps(const std::array<int64_t, kGroups>& steps) {
  for (size_t g = 0; g < kGroups; ++g) optimiser_.set_steps(steps[g], g);
}

template <class F>
void StudentTrainer::each_group(bool conditioned, const F& fn) {
  for (size_t g = 0; g < kGroups; ++g) {
    if (g != kConditioner || conditioned) fn(g);
  }
}

StudentTrainer::Terms StudentTrainer::forward(const TeacherSample& s, const LossWeights& weights) const {
  Terms t;
  t.out = layer_.forward(s.call).out;
  t.huber = op::smooth_l1(t.out, s.teacher, static_cast<float>(options_.huber_beta));
  t.cosine = op::mean_all(op::cosine_similarity(t.out, s.teacher));
  t.loss = op::add(weighed(t.huber, weights.huber()), weighed(op::affine(t.cosine, -1, 1), weights.cosine()));
  return t;
}

PendingUpdate StudentTrainer::begin(const TeacherSample& sample, LossWeights& weights) {
  Profiler& profiler = sample.call.q.device().profiler();
  const ProfileScope whole(profiler, "update");
  Terms terms;
  const Tensor norm = gradients({&optimiser_, &weights.optimiser()}, 1, [&](int64_t) {
    terms = forward(sample, weights);
    return Seeded{terms.loss, {}};
  });
  const ProfileScope part(profiler, "optimiser");
  const auto untaped = Tape::pause();
  const Tensor power = op::mean_all(op::unary(sample.teacher, op::Unary::square)),
               mse = op::mse(terms.out, sample.teacher);
  PendingUpdate pending{{}, terms.out, sample.call.context.conditioned()};
  const Tensor scale = gradient_scale(norm, options_.grad_clip_norm, terms.loss);
  each_group(pending.conditioned, [&](size_t g) {
    AdamWOptions adam;
    adam.lr =
        options_.learning_rate * (g == kAlpha ? options_.alpha_lr_multiplier : options_.phi_lr_multiplier);
    optimiser_.apply(adam, scale, g);
  });
  // What weighs the losses of all layers isn't clipped with one layer's gradients.
  AdamWOptions adam = options_.adam;
  adam.lr = options_.learning_rate;
  weights.optimiser().apply(adam, gradient_scale(norm, 0, terms.loss));
  std::vector<Tensor> numbers;
  for (const Tensor& x : {terms.loss, terms.huber, terms.cosine, mse, power, norm, layer_.alpha,
                          weights.huber(), weights.cosine()}) {
    numbers.push_back(x.view({1}));
  }
  pending.numbers = norm.device().stream().begin_download(op::concat(numbers, 0).range());
  return pending;
}

UpdateResult StudentTrainer::finish(const PendingUpdate& pending, LossWeights& weights) {
  Device& device = optimiser_.param().flat().device();
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
    each_group(pending.conditioned, [&](size_t g) { optimiser_.take_back(g); });
    weights.optimiser().take_back();
  }
  device.kernels().save();
  return r;
}

}  // namespace vkflux
