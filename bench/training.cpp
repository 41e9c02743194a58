// One update of a student of attention, and one training step of a small transformer with its text encoders.
#include <fmt/format.h>

#include <cmath>
#include <memory>

#include "autograd/ops.h"
#include "autograd/tape.h"
#include "bench/cases.h"
#include "bench/host_flux.h"
#include "model/flux/rope.h"
#include "model/flux/transformer.h"
#include "model/text/t5.h"
#include "train/distill/student_trainer.h"
#include "train/trainer.h"

namespace vkflux::bench {
namespace {

/// Of a distillation update: tokens of text and image, sampled queries, the student's networks.
struct StudentSetting {
  std::string what;
  int64_t heads, text, image, queries, head_dim, features, hidden, layers;
};

struct StudentSetup {
  StudentSetting s;
  HkrLayer layer;
  LossWeights weights;
  std::unique_ptr<StudentTrainer> trainer;
  TeacherSample sample;
  Values before;
  Tensor first_out, first_param, first_grad, first_numbers;

  StudentSetup(Device& device, const StudentSetting& setting)
      : s(setting), layer(config_of(setting)), weights(device) {
    const std::vector<Param> params = parameters(layer);
    allocate(params, device);
    initialise(params, hkr_init(config_of(s)), 1);
    trainer = std::make_unique<StudentTrainer>(device, layer, StudentOptimizer{});
    before = trainer->optimiser().param().flat().to_host();
    const int64_t n = s.text + s.image;
    sample.call.q = noise(device, {1, s.heads, s.queries, s.head_dim});
    sample.teacher = noise(device, {1, s.heads, s.queries, s.head_dim}, 1);
    sample.call.k = noise(device, {1, s.heads, n, s.head_dim}, 2);
    sample.call.v = noise(device, {1, s.heads, n, s.head_dim}, 3);
    sample.call.context.text = s.text;
    sample.call.context.sigma = 0.7f, sample.call.context.cfg = 1;
  }
  static HkrConfig config_of(const StudentSetting& s) {
    HkrConfig c;
    c.head_dim = s.head_dim, c.feature_dim = s.features, c.hidden = s.hidden, c.layers = s.layers;
    return c;
  }
  Inputs update() {
    const UpdateResult r = trainer->update(sample, weights);
    if (first_out.defined()) return {};
    first_out = r.out;
    Device& device = r.out.device();
    first_param = Tensor::zeros(device, trainer->optimiser().param().flat().shape());
    op::accumulate(first_param, trainer->optimiser().param().flat());
    first_grad = Tensor::zeros(device, first_param.shape());
    op::accumulate(first_grad, trainer->optimiser().grad().flat());
    const std::vector<float> numbers{static_cast<float>(r.huber), static_cast<float>(r.cosine),
                                     static_cast<float>(r.mse), static_cast<float>(r.grad_norm)};
    first_numbers = Tensor::from(device, std::span<const float>(numbers), {4});
    return {first_numbers, first_param};
  }
  /// The loss terms from the student's answer, and the optimiser's step from the gradient.
  std::vector<Expected> expected() const {
    const Values y = first_out.to_host(), t = sample.teacher.to_host(), g = first_grad.to_host();
    const StudentOptimizer o;
    double huber = 0, mse = 0, cosine = 0;
    for (size_t i = 0; i < y.size(); ++i) {
      const double d = std::fabs(static_cast<double>(y[i]) - t[i]);
      huber += d < o.huber_beta ? 0.5 * d * d / o.huber_beta : d - 0.5 * o.huber_beta;
      mse += d * d;
    }
    const int64_t dim = s.head_dim;
    for (size_t i = 0; i < y.size(); i += static_cast<size_t>(dim)) {
      cosine += dot(&y[i], &t[i], dim) / std::sqrt(dot(&y[i], &y[i], dim) * dot(&t[i], &t[i], dim));
    }
    const double n = static_cast<double>(y.size());
    const double norm = std::sqrt(dot(g.data(), g.data(), static_cast<int64_t>(g.size())));
    Expectation numbers(0);
    numbers.add(0, huber / n), numbers.add(1, cosine * static_cast<double>(dim) / n);
    numbers.add(2, mse / n), numbers.add(3, norm);
    const double clip = std::min(1.0, o.grad_clip_norm / (norm + 1e-6));
    Expectation param(1);
    const Arena& values = trainer->optimiser().param();
    for (size_t p = 0; p < values.size(); ++p) {
      if (!trainer->optimiser().name(p).starts_with("kernel.")) continue;
      for (const int64_t j : spread(values[p].numel(), 16)) {
        const auto at = static_cast<size_t>(values[p].offset() + j);
        const double slope = g[at] * clip, start = before[at];
        param.add(static_cast<int64_t>(at), start * (1 - o.learning_rate * o.adam.weight_decay) -
                                                o.learning_rate * slope / (std::fabs(slope) + o.adam.eps));
      }
    }
    return {numbers.take(), param.take()};
  }
};

Case student_case(Device& device, const StudentSetting& s) {
  Case c;
  c.name = "distillation update";
  c.shape = fmt::format("{} H{} T{} I{} q{} D{} F{} W{}", s.what, s.heads, s.text, s.image, s.queries,
                        s.head_dim, s.features, s.hidden);
  c.tolerance = 1e-3;
  c.make = [&device, s] {
    const auto setup = std::make_shared<StudentSetup>(device, s);
    Instance i;
    i.prepare = [setup] { return [setup] { return setup->update(); }; };
    i.reference = [setup] { return setup->expected(); };
    return i;
  };
  return c;
}

constexpr int64_t kBatch = 64, kTokens = 8, kSide = 4, kImage = kSide * kSide, kChannels = 64, kText = 128;

/// The shape of models/emoji, trained as `vkflux train flow` does, on noise in place of latents.
class MiniatureTrainer final : public Trainer {
 public:
  explicit MiniatureTrainer(Device& device)
      : Trainer(device, options()), model_(flux_config()), clip_(clip_config()), t5_(t5_config()) {
    std::vector<Trainable> trainables;
    const auto add = [&](auto& module, const InitRule& rule) {
      const std::vector<Param> params = parameters(module);
      allocate(params, device);
      initialise(params, rule, 1);
      for (const Param& p : params) trainables.push_back({p.name, p.tensor});
    };
    add(model_, [](const Param& p) {  // nothing zero, so that every gradient flows
      return p.name.find("norm.scale") != std::string::npos ? Init{Init::Kind::constant, 1}
                                                            : Init{Init::Kind::normal, 0.05f};
    });
    add(clip_, clip_init());
    add(t5_, t5_init(t5_.config()));
    for (Trainable& t : trainables) t.name += fmt::format("#{}", names_++);
    adopt(trainables);
    all_ = trainables;
    rope_ = rope_table(device, flux1_ids(kTokens, kSide, kSide), 1, flux_config().axes_dim, 10000);
    for (int64_t b = 0; b < kBatch; ++b) {
      std::vector<int32_t> row;
      for (int64_t i = 0; i + 1 < kTokens; ++i) row.push_back(static_cast<int32_t>((37 * b + 11 * i) % 2000));
      row.push_back(2047);
      ids_.push_back(row);
      times_.push_back((static_cast<float>(b) + 0.5f) / static_cast<float>(kBatch));
    }
    x0_ = noise(device, {kBatch, kImage, kChannels}, 1);
    noise_ = noise(device, {kBatch, kImage, kChannels}, 2);
  }

  /// The loss of the weights as they are.
  double loss_now() {
    std::map<std::string, Tensor> report;
    const auto scope = Tape::pause();
    return loss(0, 0, report).item();
  }
  /// The same by the host's transformer, from the text encoders' answers.
  double loss_on_host() {
    const PassInputs in = inputs();
    const HostFlux host(flux_config(), parameters(model_), rope_.to_host(), kTokens);
    const Values x0 = x0_.to_host(), n = noise_.to_host();
    double sum = 0;
    for (const int64_t b : spread(kBatch, kBatch)) {
      const auto part = [b](const Tensor& x) { return x.slice(0, b, 1).to_host(); };
      const Values v = host.forward(part(in.x), part(in.condition["txt"]), part(in.condition["y"]),
                                    times_[static_cast<size_t>(b)]);
      for (size_t i = 0; i < v.size(); ++i) {
        const size_t at = static_cast<size_t>(b) * v.size() + i;
        const double d = v[i] - (static_cast<double>(n[at]) - x0[at]);
        sum += d * d;
      }
    }
    return sum / static_cast<double>(x0.size());
  }
  /// |gradient| as the slope of the loss along the gradient.
  double slope_along_gradient() {
    Tape tape;
    for (const Trainable& t : all_) tape.watch(*t.tensor);
    Tensor value;
    std::map<std::string, Tensor> report;
    {
      const auto scope = tape.record();
      value = loss(0, 0, report);
    }
    const Grads grads = tape.backward(value);
    std::vector<Tensor> gradients;
    double power = 0;
    for (const Trainable& t : all_) {
      gradients.push_back(grads.of(*t.tensor));
      power += gradients.back().defined() ? op::sum_all(op::unary(gradients.back(), op::Unary::square)).item()
                                          : 0.0f;
    }
    constexpr float kStep = 5e-3f;
    const float unit = static_cast<float>(kStep / std::sqrt(power));
    const auto move = [&](float by) {
      for (size_t i = 0; i < all_.size(); ++i) {
        if (gradients[i].defined()) op::accumulate(*all_[i].tensor, op::affine(gradients[i], by));
      }
    };
    move(unit);
    const double above = loss_now();
    move(-2 * unit);
    const double below = loss_now();
    move(unit);
    return (above - below) / (2.0 * kStep);
  }

 protected:
  Tensor loss(int64_t, int64_t, std::map<std::string, Tensor>&) override {
    return op::mse(model_.forward(inputs()), op::sub(noise_, x0_));
  }

 private:
  static TrainOptions options() {
    TrainOptions o;
    o.steps = int64_t{1} << 40, o.batch = kBatch, o.warmup = 1, o.log_every = 1;
    return o;
  }
  static HostFlux::Config flux_config() {
    HostFlux::Config c;
    c.in_channels = c.out_channels = kChannels;
    c.vec_in_dim = c.context_in_dim = kText;
    c.hidden = 192, c.mlp_hidden = 768, c.heads = 3, c.head_dim = 64;
    c.depth = 2, c.depth_single = 4;
    c.axes_dim = default_rope_axes(c.head_dim);
    return c;
  }
  static ClipTextConfig clip_config() {
    ClipTextConfig c;
    c.vocab = 2048, c.positions = kTokens, c.width = kText, c.layers = 2, c.heads = 4, c.mlp = 256;
    c.eos = 2047;
    return c;
  }
  static T5Config t5_config() {
    T5Config c;
    c.vocab = 2048, c.width = kText, c.layers = 2, c.heads = 4, c.head_dim = 32, c.mlp = 256;
    return c;
  }
  PassInputs inputs() {
    PassInputs in;
    in.t = Tensor::from(device_, std::span<const float>(times_), {kBatch});
    in.x = op::add(x0_, op::mul(op::sub(noise_, x0_), in.t.view({kBatch, 1, 1})));
    in.condition.set("txt", t5_.forward(ids_));
    in.condition.set("y", clip_.forward(ids_).pooled);
    in.positions = rope_;
    return in;
  }

  HostFlux::Model model_;
  ClipText clip_;
  T5Encoder t5_;
  std::vector<Trainable> all_;
  TokenIds ids_;
  std::vector<float> times_;
  Tensor x0_, noise_, rope_;
  int names_ = 0;
};

Case training_case(Device& device) {
  Case c;
  c.name = "training step";
  c.shape = fmt::format("miniature B{} C192 2+4 T{} I{}", kBatch, kTokens, kImage);
  c.tolerance = 1e-2;
  c.make = [&device] {
    struct Run {
      std::unique_ptr<MiniatureTrainer> trainer;
      double loss = 0, slope = 0;
      bool done = false;
    };
    const auto run = std::make_shared<Run>();
    run->trainer = std::make_unique<MiniatureTrainer>(device);
    run->loss = run->trainer->loss_on_host();
    run->slope = run->trainer->slope_along_gradient();
    Instance i;
    i.prepare = [&device, run]() -> std::function<Inputs()> {
      return [&device, run] {
        run->trainer->step();
        if (run->done) return Inputs{};
        run->done = true;
        float loss = 0, norm = 0;
        for (const auto& [name, value] : run->trainer->latest()) {
          if (name == "loss") loss = static_cast<float>(value);
          if (name == "grad_norm") norm = static_cast<float>(value);
        }
        const std::vector<float> numbers{loss, norm};
        return Inputs{Tensor::from(device, std::span<const float>(numbers), {2})};
      };
    };
    i.reference = [run] {
      Expected loss, slope;
      loss.index = {0}, loss.value = {run->loss}, loss.scale = run->loss;
      slope.index = {1}, slope.value = {run->slope}, slope.scale = std::fabs(run->slope);
      return std::vector<Expected>{loss, slope};
    };
    return i;
  };
  return c;
}

}  // namespace

void add_training(std::vector<Case>& cases, Device& device) {
  cases.push_back(student_case(device, {"Flux", 8, 77, 1024, 128, 128, 256, 512, 3}));
  cases.push_back(student_case(device, {"miniature", 3, 8, 16, 24, 64, 32, 64, 2}));
  cases.push_back(training_case(device));
}

}  // namespace vkflux::bench
