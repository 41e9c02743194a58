// Golden cases of online distillation: optimiser trajectories of one student on given replay samples.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "app/verify/case.h"
#include "train/distill/distiller.h"
#include "train/distill/settings.h"
#include "vk/error.h"

namespace vkflux::verify {
namespace {

using nlohmann::json;

constexpr double kStatTolerance = 1e-3, kTraceTolerance = 1e-3, kFirstLosses = 1e-4, kMeanShare = 0.05;
constexpr size_t kFirst = 5;

// Files that name no storage type were made with f32 samples.
DistillSettings settings_of(const json& config) {
  DistillSettings s;
  s.replay_storage_dtype = "float32";
  for (json part : {config, object_field(config, "runtime")}) {
    // Numbers in the forms that golden files have; the product's reader is strict.
    const json known(s.to_json());
    json plain = json::object();
    for (const auto& [key, value] : known.items()) {
      if (value.is_boolean()) {
        if (const auto flag = optional_field<bool>(part, key)) plain[key] = *flag;
      } else if (value.is_number_integer()) {
        if (const auto n = optional_field<int64_t>(part, key)) plain[key] = *n;
      } else if (value.is_number()) {
        if (const auto x = optional_field<double>(part, key)) plain[key] = *x;
      } else if (const auto other = optional_field<json>(part, key)) {
        plain[key] = *other;
      }
    }
    s.merge(io::Json(plain), "config");
  }
  return s;
}

StudentOptimizer optimizer_of(const json& config, const DistillSettings& s) {
  StudentOptimizer o{s.learning_rate,  s.phi_lr_multiplier, s.alpha_lr_multiplier,
                     s.grad_clip_norm, s.huber_beta,        {}};
  const json adam = object_field(config, "adamw");
  const auto betas = field(adam, "betas", std::vector<double>{o.adam.beta1, o.adam.beta2});
  o.adam.beta1 = betas.front(), o.adam.beta2 = betas.back();
  o.adam.eps = field(adam, "eps", o.adam.eps);
  o.adam.weight_decay = field(adam, "weight_decay", o.adam.weight_decay);
  return o;
}

// Sample i as the replay buffer keeps it and hands it out.
TeacherSample sample_of(Case& c, size_t i, const DistillSettings& settings) {
  const json j = required<json>(c.config(), "samples").at(i);
  const std::string name = fmt::format("sample{}.", i);
  const auto stored = [&](const char* part) {
    const Tensor t = c.in(name + part);
    return host_tensor(t.to_host(), {t.shape().begin(), t.shape().end()}, settings.replay_dtype());
  };
  ReplaySample s;
  s.q_sub = stored("q");
  s.k_full = stored("k");
  s.v_full = stored("v");
  s.teacher_sub = stored("teacher");
  const Tensor keys = c.in(name + "k");
  if (c.has_in(name + "key_mask"))
    s.key_mask = c.key_mask(name + "key_mask", keys.dim(0), keys.dim(2)).to_host_bytes();
  s.context = {optional_field<int64_t>(j, "cond"), optional_field<int64_t>(j, "text"),
               optional_field<double>(j, "sigma"), optional_field<double>(j, "cfg")};
  return upload(c.device(), s);
}

// The steps after which the file holds the parameters: "out.step20.alpha", "out.step20_sample....".
std::set<int64_t> recorded_steps(const Case& c) {
  std::set<int64_t> out;
  for (const auto& [name, info] : c.file().tensors()) {
    int64_t n = 0;
    if (std::sscanf(name.c_str(), "out.step%ld", &n) == 1) out.insert(n);
  }
  return out;
}

double mean_error(const std::vector<float>& got, const std::vector<float>& want, size_t stride) {
  double sum = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    sum += std::fabs(static_cast<double>(got.at(i * stride)) - static_cast<double>(want[i]));
  }
  return sum / static_cast<double>(std::max<size_t>(1, want.size()));
}

void record_parameters(Case& c, StudentTrainer& trainer, int64_t step) {
  const double lr = trainer.options().learning_rate, steps = static_cast<double>(step);
  const std::string prefix = fmt::format("step{}", step);
  c.tolerance("out." + prefix + ".", 2 * lr * steps, true);
  c.tolerance("out." + prefix + ".alpha", trainer.options().alpha_lr_multiplier * lr, true);
  c.tolerance("out." + prefix + "_stat.", kStatTolerance);
  Check mean{
      fmt::format("{}: mean error of the parameters", prefix), 0, kMeanShare * lr * steps, true, true, ""};
  const Optimiser& optimiser = trainer.optimiser();
  for (size_t i = 0; i < optimiser.param().size(); ++i) {
    const std::string& name = optimiser.name(i);
    const std::vector<float> got = optimiser.param()[i].to_host();
    for (const char* kind : {".", "_sample."}) {
      const std::string stored = "out." + prefix + kind + name;
      if (!c.file().has(stored) || name == "alpha") continue;
      const std::vector<float> want = c.file().read_f32(stored);
      constexpr size_t kSample = 2048;
      const size_t stride = kind[0] == '.' ? 1 : std::max<size_t>(1, got.size() / kSample);
      mean.error = std::max(mean.error, mean_error(got, want, stride));
    }
    c.out(prefix + "." + name, got);
  }
  mean.passed = mean.error <= mean.tolerance;
  c.check(mean);
}

void record_gradients(Case& c, StudentTrainer& trainer, LossWeights& weights) {
  for (const Optimiser* o : {&trainer.optimiser(), &weights.optimiser()}) {
    for (size_t i = 0; i < o->grad().size(); ++i) c.grad(o->name(i), o->grad()[i]);
  }
}

struct Traces {
  std::vector<float> loss, terms, log_vars, alpha, grad_norm;
  void add(const UpdateResult& r) {
    const auto f = [](double x) { return static_cast<float>(x); };
    loss.push_back(f(r.loss));
    terms.insert(terms.end(), {f(r.huber), f(r.cosine), f(r.mse), f(r.nmse)});
    log_vars.insert(log_vars.end(), {f(r.log_var_huber), f(r.log_var_cosine)});
    alpha.push_back(f(r.alpha));
    grad_norm.push_back(f(r.grad_norm));
  }
};

void check_first_losses(Case& c, const std::vector<float>& got) {
  if (!c.file().has("out.trace.loss")) return;
  const std::vector<float> want = c.file().read_f32("out.trace.loss");
  Check first{"trace.loss of the first steps", 0, kFirstLosses, false, true, "of the largest loss"};
  double largest = kFirstLosses;  // the weighted loss goes through zero
  for (float w : want) largest = std::max(largest, std::fabs(static_cast<double>(w)));
  for (size_t i = 0; i < std::min({kFirst, got.size(), want.size()}); ++i) {
    first.error = std::max(first.error,
                           std::fabs(static_cast<double>(got[i]) - static_cast<double>(want[i])) / largest);
  }
  first.passed = first.error <= first.tolerance;
  c.check(first);
}

}  // namespace

void run_ttr_distill(Case& c) {
  const json& config = c.config();
  const DistillSettings settings = settings_of(config);
  HkrConfig shape;
  shape.head_dim = required<int64_t>(config, "head_dim");
  shape.feature_dim = required<int64_t>(config, "feature_dim");
  HkrLayer layer(shape, settings.hkr_options());
  for (const Param& p : parameters(layer)) *p.tensor = c.weight(p.name).alias();
  StudentTrainer trainer(c.device(), layer, optimizer_of(config, settings));
  const json start = object_field(config, "log_var_init");
  LossWeights weights(c.device(), field(start, "huber", 0.0f), field(start, "cosine", -1.0f));
  const std::set<int64_t> recorded = recorded_steps(c);
  Traces traces;
  const auto order = required<std::vector<size_t>>(config, "sample_order");
  for (size_t i = 0; i < order.size(); ++i) {
    const UpdateResult r = trainer.update(sample_of(c, order[i], settings), weights);
    traces.add(r);
    if (i == 0) {
      c.out("student_step1", r.out);
      record_gradients(c, trainer, weights);
    }
    const auto step = static_cast<int64_t>(i) + 1;
    if (recorded.count(step)) record_parameters(c, trainer, step);
  }
  c.tolerance("out.trace.", kTraceTolerance);
  c.out("trace.loss", traces.loss);
  c.out("trace.huber_cos_mse", traces.terms);
  c.out("trace.log_vars", traces.log_vars);
  c.out("trace.alpha", traces.alpha);
  c.out("trace.grad_norm", traces.grad_norm);
  check_first_losses(c, traces.loss);
}

}  // namespace vkflux::verify
