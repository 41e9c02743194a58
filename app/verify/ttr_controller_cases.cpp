// The routing controller, its policies and its training against golden files.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <set>

#include "app/verify/case.h"
#include "app/verify/host_options.h"
#include "app/verify/table_check.h"
#include "model/attention/hkr/scalar_embedding.h"
#include "model/routing/controller.h"
#include "train/controller/policy_trainer.h"
#include "train/controller/reward.h"
#include "train/run_loop.h"
#include "vk/error.h"

namespace vkflux::verify {
namespace {

constexpr double kSyntheticLogit = 20, kDefaultSigmaMax = 1, kMetricTolerance = 1e-4, kMetricFloor = 1e-2;

std::vector<uint8_t> flags(const Case& c, const std::string& name) {
  std::vector<uint8_t> out;
  for (const double x : c.numbers(name)) out.push_back(x > 0.5);
  return out;
}

std::vector<float> floats(const std::vector<double>& v) {
  return {v.begin(), v.end()};
}

ControllerNet network(Case& c) {
  const nlohmann::json& j = c.config();
  ControllerNet net({required<int64_t>(j, "num_layers"), field(j, "embed_dim", int64_t{64}),
                     field(j, "hidden_dim", int64_t{256})});
  c.use(net);
  return net;
}

RouteInput input(const nlohmann::json& j, double sigma) {
  return {sigma, field(j, "cfg_scale", 1.0), field(j, "width", int64_t{1}), field(j, "height", int64_t{1})};
}

bool has_prefix(const Case& c, const std::string& prefix) {
  const auto it = c.file().tensors().lower_bound(prefix);
  return it != c.file().tensors().end() && it->first.rfind(prefix, 0) == 0;
}

/// "out.TAG.REST" -> every TAG.
std::set<std::string> tags(const Case& c) {
  std::set<std::string> out;
  for (const auto& [name, info] : c.file().tensors()) {
    if (name.rfind("out.", 0) != 0) continue;
    const size_t dot = name.find('.', 4);
    if (dot != std::string::npos) out.insert(name.substr(4, dot - 4));
  }
  return out;
}

void check_metrics(Case& c, const std::string& tag, const nlohmann::json& wanted, const NamedValues& got) {
  for (const auto& [name, want] : wanted.items()) {
    if (want.is_null()) continue;
    const auto it = got.find(name);
    c.check(it == got.end() ? failed_check(tag + "." + name, "not computed")
                            : number_check(tag + "." + name, it->second, number_or_nan(want),
                                           kMetricTolerance, kMetricFloor));
  }
}

// The trainer's arguments, or its training configuration with sections.
PolicyTrainOptions trainer_options(const nlohmann::json& config) {
  nlohmann::json t = object_field(config, "trainer");
  const nlohmann::json sections = object_field(t, "training_config");
  for (const char* section : {"loss_config", "optimizer_config", "schedule_config"}) {
    const nlohmann::json part = object_field(sections, section);
    for (const auto& [name, value] : part.items()) t[name] = value;
  }
  PolicyTrainOptions o;
  o.lr = field(t, "learning_rate", 1e-3);
  o.clip = std::max(0.0, field(t, "grad_clip_norm", 1.0));
  o.reward.target_ttr_ratio = field(t, "target_ttr_ratio", 0.7);
  o.reward.lambda_eff = field(t, "lambda_eff", 1.0);
  o.reward.lambda_entropy = field(t, "lambda_entropy", 0.1);
  o.floor = field(t, "reward_baseline_quality_floor", -0.3);
  o.floor_on = FloorOn::reward;
  o.entropy_over_all = true;
  o.weight_decay = field(object_field(config, "adamw"), "weight_decay", 0.01);
  return o;
}

void put_gradients(Case& c, const std::string& tag, const PolicyTrainer& trainer) {
  const Optimiser& o = trainer.optimiser();
  for (size_t i = 0; i < o.grad().size(); ++i) c.grad(tag + "." + o.name(i), o.grad()[i]);
}

/// Parameters after `steps` steps: elementwise and on average.
void put_parameters(Case& c, const std::string& tag, ControllerNet& net, double lr, int64_t steps) {
  const double moved = lr * static_cast<double>(steps);
  c.tolerance("out." + tag + ".", 2 * moved, true);
  for (const Param& p : parameters(net)) {
    c.out(tag + "." + p.name, *p.tensor);
    const std::vector<double> want = c.numbers("out." + tag + "." + p.name);
    const std::vector<float> got = p.tensor->to_host();
    double sum = 0;
    for (size_t i = 0; i < got.size(); ++i) sum += std::fabs(static_cast<double>(got[i]) - want[i]);
    Check k;
    k.tensor = "mean error of " + tag + "." + p.name;
    k.error = sum / static_cast<double>(got.size());
    k.tolerance = 0.05 * moved;
    k.absolute = true;
    k.passed = k.error <= k.tolerance;
    c.check(k);
  }
}

Trajectory draw(const ControllerNet& net, const std::vector<RouteInput>& inputs,
                const std::vector<uint8_t>& eligible, const std::vector<double>& uniform,
                const PolicyOptions& policy) {
  const std::vector<float> logits = net.forward(inputs).to_host();
  const size_t layers = eligible.size();
  Trajectory t{inputs, {}};
  for (size_t n = 0; n < inputs.size(); ++n) {
    t.decisions.push_back(decide(std::span(logits).subspan(n * layers, layers), eligible, policy,
                                 [&](uint32_t l) { return uniform.at(n * layers + l); }));
  }
  return t;
}

std::vector<double> masks(const Trajectory& t) {
  std::vector<double> out;
  for (const RouteDecision& d : t.decisions)
    for (const uint8_t s : d.student) out.push_back(s ? 0 : 1);
  return out;
}

/// The objective of the policy gradient and its gradient: with an advantage of -1 it is the loss.
double objective(PolicyTrainer& trainer, const Trajectory& t) {
  const PlayedTrajectory played{t, -1};
  return trainer.update({&played, 1}).at("policy_loss");
}

PolicyTrainOptions objective_options() {
  PolicyTrainOptions o;
  o.reward.lambda_eff = o.reward.lambda_entropy = 0;
  return o;
}

void policy_outputs(Case& c, const std::string& tag, const Trajectory& t,
                    const std::vector<uint8_t>& eligible) {
  const std::vector<double> mask = masks(t);
  std::vector<float> probs, logs, synthetic;
  double total = 0, by_default = 0, by_largest = 0;
  const double most = largest_sigma(t);
  for (size_t n = 0, i = 0; n < t.decisions.size(); ++n) {
    for (const float p : t.decisions[n].probability) {
      const double value = log_probability(mask[i] > 0.5, static_cast<double>(p));
      total += value;
      by_default += sigma_weight(t.inputs[n].sigma, kDefaultSigmaMax) * value;
      by_largest += sigma_weight(t.inputs[n].sigma, most) * value;
      probs.push_back(p);
      logs.push_back(static_cast<float>(value));
      synthetic.push_back(static_cast<float>(mask[i++] > 0.5 ? kSyntheticLogit : -kSyntheticLogit));
    }
  }
  const TrajectoryShares s = trajectory_shares(t, eligible);
  c.tolerance("out." + tag + ".mask", 0);
  c.tolerance("out." + tag + ".synthetic_logits", 0);
  c.out(tag + ".mask", floats(mask));
  c.out(tag + ".synthetic_logits", synthetic);
  c.out(tag + ".probs", probs);
  c.out(tag + ".log_probs", logs);
  c.out(tag + ".total_log_prob", floats({total}));
  c.out(tag + ".sigma_weighted_default", floats({by_default}));
  c.out(tag + ".sigma_weighted_max", floats({by_largest}));
  c.out(tag + ".ttr_fraction", floats(s.student));
  c.out(tag + ".summary", floats({s.entropy_all, s.full_eligible, s.full_overall, s.expected_full_eligible,
                                  s.expected_full_overall}));
}

}  // namespace

void run_ttr_controller(Case& c) {
  c.tolerance("out.", 5e-4);
  c.tolerance("mid.", 5e-4);
  c.tolerance("grad.", 2e-3);
  const ControllerNet net = network(c);
  const nlohmann::json calls = required<nlohmann::json>(c.config(), "calls");
  for (const auto& [tag, call] : calls.items()) {
    const ErrorContext context(tag);
    const std::vector<RouteInput> inputs{input(call, field(call, "sigma", 0.0))};
    ControllerNet copy = net;
    Tape tape;
    for (const Param& p : parameters(copy)) {
      *p.tensor = p.tensor->alias();
      tape.watch(*p.tensor);
    }
    Tensor logits;
    {
      const auto scope = tape.record();
      logits = copy.forward(inputs);
    }
    c.out(tag + ".logits", logits);
    std::vector<float> probs;
    for (const float x : logits.to_host())
      probs.push_back(static_cast<float>(logistic(static_cast<double>(x))));
    c.out(tag + ".probs", probs);
    c.mid(tag + ".resolution", copy.resolution(inputs));
    const std::vector<float> sigma = scalar_embedding(inputs[0].sigma, net.config().embed_dim);
    c.mid(tag + ".sigma_embed",
          Tensor::from(c.device(), std::span<const float>(sigma), {1, static_cast<int64_t>(sigma.size())}));
    if (!has_prefix(c, "grad." + tag + ".")) continue;
    Grads grads;
    tape.backward({{logits, c.in("loss_cotangent." + tag).view(logits.shape())}}, grads);
    for (const Param& p : parameters(copy)) c.grad(tag + "." + p.name, grads.of(*p.tensor));
  }
}

void run_ttr_policy(Case& c) {
  c.tolerance("out.", kMetricTolerance);
  c.tolerance("grad.", 2e-3);
  const ControllerNet net = network(c);
  const std::vector<uint8_t> all(static_cast<size_t>(net.config().layers), 1),
      ready = c.has_in("ready_mask") ? flags(c, "in.ready_mask") : all;
  PolicyOptions policy;
  policy.noise = ActionNoise::gumbel;
  std::vector<RouteInput> inputs;
  for (const double sigma : c.numbers("in.sigmas")) inputs.push_back(input(c.config(), sigma));
  for (const std::string& tag : tags(c)) {
    const ErrorContext context(tag);
    const std::string able_here = "in." + tag + ".ready_mask";
    const std::vector<uint8_t> eligible = c.file().has(able_here) ? flags(c, able_here)
                                          : tag == "ready"        ? ready
                                                                  : all;
    const std::string own = "in." + tag + ".uniform";
    const Trajectory t =
        draw(net, inputs, eligible, c.numbers(c.file().has(own) ? own : "in.uniform"), policy);
    policy_outputs(c, tag, t, eligible);
    ControllerNet one = net, two = net;
    PolicyTrainer everything(one, all, objective_options());
    c.out(tag + ".recompute_no_eligible", floats({objective(everything, t)}));
    if (std::count(ready.begin(), ready.end(), uint8_t{1}) == 0) {
      // Nothing is learnt then, and the trainer refuses: the objective is a sum over nothing.
      c.out(tag + ".recompute_eligible", floats({0}));
      for (const Param& p : parameters(two)) c.grad(tag + "." + p.name, Tensor::zeros(c.device(), p.shape));
      continue;
    }
    PolicyTrainer able(two, ready, objective_options());
    c.out(tag + ".recompute_eligible", floats({objective(able, t)}));
    put_gradients(c, tag, able);
  }
}

void run_ttr_threshold(Case& c) {
  c.tolerance("out.", 0);
  c.tolerance("mid.", 1e-5);
  for (const auto& [full, info] : c.file().tensors()) {
    if (full.rfind("out.", 0) != 0) continue;
    const std::string name = full.substr(4), call = name.substr(0, name.find('.')),
                      what = name.substr(call.size() + 1);
    const std::vector<float> logits = floats(c.numbers("in." + call + ".logits"));
    const std::vector<uint8_t> eligible(logits.size(), 1);
    PolicyOptions policy;
    double threshold = 0, temperature = 1, speed = 0;
    const bool drawn = std::sscanf(what.c_str(), "stochastic_t%lf_T%lf", &threshold, &temperature) == 2;
    if (drawn || std::sscanf(what.c_str(), "threshold_t%lf_T%lf", &threshold, &temperature) == 2) {
      policy.threshold = threshold = host_policy_threshold(threshold);
      policy.temperature = temperature = host_temperature(temperature);
    } else if (std::sscanf(what.c_str(), "mask_q%lf", &speed) == 1) {
      policy.threshold = quality_threshold(speed);
    } else {
      throw Error(ErrorCode::unsupported, "unknown policy '" + what + "'");
    }
    policy.kind = drawn ? PolicyKind::stochastic : PolicyKind::threshold;
    const std::string draws = "in." + call + ".uniform";
    const std::vector<double> uniform = c.file().has(draws) ? c.numbers(draws) : std::vector<double>();
    const RouteDecision d = decide(logits, eligible, policy, [&](uint32_t l) { return uniform.at(l); });
    std::vector<float> mask, adjusted;
    for (size_t l = 0; l < logits.size(); ++l) {
      mask.push_back(d.student[l] ? 0 : 1);
      adjusted.push_back(static_cast<float>(
          adjusted_probability(static_cast<double>(d.probability[l]), threshold, temperature)));
    }
    if (what[0] == 't') c.tolerance(full, 1e-6, true);
    c.out(name, what[0] == 't' ? d.probability : mask);
    if (c.file().has("mid." + name + ".adjusted")) {
      c.mid(name + ".adjusted", Tensor::from(c.device(), std::span<const float>(adjusted),
                                             {static_cast<int64_t>(adjusted.size())}));
    }
  }
  for (const auto& row : list_field(c.config(), "rows")) {
    const double speed = required<double>(row, "quality_speed"), threshold = quality_threshold(speed);
    const std::string at = fmt::format("at quality_speed {}", speed);
    c.check(number_check("threshold " + at, threshold, required<double>(row, "threshold"), 1e-12, 1));
    const auto full = optional_field<int64_t>(row, "full_layers");
    const auto call = optional_field<int64_t>(row, "call");
    if (!full || !call) continue;
    const std::vector<double> logits = c.numbers(fmt::format("in.call{}.logits", *call));
    const auto above =
        std::count_if(logits.begin(), logits.end(), [&](double x) { return logistic(x) > threshold; });
    c.check(number_check(fmt::format("full layers of call{} {}", *call, at), static_cast<double>(above),
                         static_cast<double>(*full), 0, 1));
  }
}

void run_ttr_reinforce(Case& c) {
  c.tolerance("out.", kMetricTolerance);
  c.tolerance("grad.", 2e-3);
  ControllerNet net = network(c);
  const auto layers = static_cast<size_t>(net.config().layers);
  const PolicyTrainOptions options = trainer_options(c.config());
  PolicyTrainer trainer(net, std::vector<uint8_t>(layers, 1), options);
  std::vector<float> losses, baselines;
  const nlohmann::json steps = required<nlohmann::json>(c.config(), "steps");
  for (size_t i = 0; i < steps.size(); ++i) {
    const auto& step = steps[i];
    const std::string tag = fmt::format("step{}", i);
    const ErrorContext context(tag);
    // The step may name the tensor, as "in.step1.eligible".
    const std::string able = field<std::string>(step, "eligible", "in." + tag + ".eligible");
    trainer.set_eligible(c.file().has(able) ? flags(c, able) : std::vector<uint8_t>(layers, 1));
    RouteDecision d;
    for (const double full : c.numbers("in." + tag + ".mask")) d.student.push_back(full < 0.5);
    NamedValues m =
        trainer.update_whole_run(input(step, field(step, "sigma", 0.0)), d, required<double>(step, "reward"));
    losses.push_back(static_cast<float>(m.at("policy_loss")));
    baselines.push_back(static_cast<float>(m.at("reward_baseline")));
    m["total_loss"] = m.at("reinforce_total_loss");
    // The reference takes the mask as it is where nobody says which layers had to stay on full attention.
    m["actual_full_attn_ratio_overall"] = m.at("mask_mean_overall");
    m["actual_ttr_ratio_overall"] = 1 - m.at("mask_mean_overall");
    for (const char* suffix : {"", "_overall"}) {
      const double mask = m.at(std::string("mask_mean") + suffix);
      m[std::string("full_attn_mask_mean") + suffix] = mask;
      m[std::string("ttr_mask_mean") + suffix] = 1 - mask;
    }
    m["eligible_layer_count"] = m.at("eligible_ttr_layers");
    m["forced_full_layer_count"] = m.at("forced_full_layers");
    m["total_layer_count"] = static_cast<double>(layers);
    m["reward_count"] = static_cast<double>(trainer.baseline().count());
    check_metrics(c, tag, object_field(step, "metrics"), m);
    if (has_prefix(c, "grad." + tag + ".")) put_gradients(c, tag, trainer);
    if (has_prefix(c, "out." + tag + "."))
      put_parameters(c, tag, net, options.lr, static_cast<int64_t>(i) + 1);
  }
  c.out("policy_loss", losses);
  c.out("baseline", baselines);
}

void run_ttr_sigma_policy(Case& c) {
  c.tolerance("out.", kMetricTolerance);
  c.tolerance("grad.", 2e-3);
  ControllerNet net = network(c);
  const PolicyTrainOptions options = trainer_options(c.config());
  const auto layers = static_cast<size_t>(net.config().layers);
  const std::vector<uint8_t> ready =
      c.has_in("ready_mask") ? flags(c, "in.ready_mask") : std::vector<uint8_t>(layers, 1);
  PolicyTrainer trainer(net, ready, options);
  PolicyOptions policy;
  policy.noise = ActionNoise::gumbel;
  std::vector<RouteInput> inputs;
  for (const double sigma : required<std::vector<double>>(c.config(), "sigmas"))
    inputs.push_back(input(c.config(), sigma));
  const auto rewards = required<std::vector<double>>(c.config(), "rewards");
  const nlohmann::json metrics = list_field(c.config(), "metrics");
  for (size_t i = 0; i < rewards.size(); ++i) {
    const std::string tag = fmt::format("iter{}", i);
    const PlayedTrajectory played{draw(net, inputs, ready, c.numbers("in." + tag + ".uniform"), policy),
                                  rewards[i]};
    c.tolerance("out." + tag + ".mask", 0);
    c.out(tag + ".mask", floats(masks(played.trajectory)));
    NamedValues m = trainer.update({&played, 1});
    m["total_loss"] = m.at("reinforce_total_loss");
    if (i < metrics.size()) check_metrics(c, tag, metrics[i], m);
    if (has_prefix(c, "grad." + tag + ".")) put_gradients(c, tag, trainer);
  }
  put_parameters(c, "final", net, options.lr, static_cast<int64_t>(rewards.size()));
}

void run_ttr_reward_loss(Case& c) {
  c.tolerance("out.", kMetricTolerance);
  for (const auto& row : list_field(c.config(), "rows")) {
    const std::string tag = fmt::format("case{}", required<int64_t>(row, "case"));
    const ErrorContext context(tag);
    const nlohmann::json t = object_field(row, "trainer");
    std::vector<std::pair<std::string, double>> weights;
    for (const std::string& name : reward_names())
      weights.emplace_back(name, field(t, name + "_weight", name == "rmse" || name == "cosine" ? 1.0 : 0.0));
    const QualityLoss quality(weights);
    RewardInput in;
    in.student = c.in(tag + ".student");
    in.teacher = c.in(tag + ".teacher");
    QualityLoss::Value value;
    {
      const auto scope = c.tape().record();
      value = quality.whole(in);
    }
    const double full = required<double>(row, "actual_full_attn_ratio"),
                 target = field(t, "target_ttr_ratio", 0.7), penalty = one_sided_efficiency(full, target),
                 loss = static_cast<double>(value.loss.item());
    c.out(tag + ".loss_without_penalty", floats({loss}));
    c.out(tag + ".loss_with_penalty", floats({loss + penalty}));
    const RewardTerms terms = reward_terms({target, 0, 0}, -loss, 0, full, 0);
    NamedValues m{{"loss", loss + penalty},
                  {"efficiency_penalty", penalty},
                  {"actual_full_attn_ratio", full},
                  {"actual_ttr_ratio", 1 - full},
                  {"target_ttr_ratio", terms.target_ttr_ratio},
                  {"target_full_attn_ratio", terms.target_full_attn_ratio}};
    for (const auto& [name, x] : value.terms) m[name] = static_cast<double>(x.item());
    const nlohmann::json metrics = object_field(row, "metrics");
    for (const auto& [name, want] : metrics.items()) m.try_emplace(name, 0);  // terms that aren't on
    check_metrics(c, tag, metrics, m);
    if (const auto reward = optional_field<double>(row, "reward_without_penalty"))
      c.check(number_check(tag + ".reward", terms.reward, *reward, kMetricTolerance, kMetricFloor));
    const std::string grad = "in." + tag + ".student";
    if (!c.file().has("grad." + grad)) continue;
    double most = 0;
    for (const double g : c.numbers("grad." + grad)) most = std::max(most, std::fabs(g));
    // Of equal pictures: rounding alone.
    if (most < 1e-6) c.tolerance("grad." + grad, kMetricTolerance, true);
    c.grad(grad, c.tape().backward(value.loss).of(in.student));
  }
}

}  // namespace vkflux::verify
