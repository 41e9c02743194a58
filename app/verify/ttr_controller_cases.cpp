// The routing controller, its policies and its training against golden files.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <set>

#include "app/verify/case.h"
#include "model/attention/hkr/scalar_embedding.h"
#include "model/routing/controller.h"
#include "train/controller/policy_trainer.h"
#include "train/controller/reward.h"
#include "train/run_loop.h"
#include "vk/error.h"

namespace vkflux::verify {
namespace {

constexpr double kSyntheticLogit = 20, kMetricTolerance = 1e-4, kMetricFloor = 1e-2;

/// Values of any tensor of the file.
std::vector<double> numbers(const Case& c, const std::string& name) {
  const io::TensorInfo& info = c.file().info(name);
  if (info.dtype == io::FileDType::f32 || info.dtype == io::FileDType::f64) {
    const std::vector<float> v = c.file().read_f32(name);
    return {v.begin(), v.end()};
  }
  const std::vector<int32_t> v = c.file().read_i32(name);
  return {v.begin(), v.end()};
}

std::vector<uint8_t> flags(const Case& c, const std::string& name) {
  std::vector<uint8_t> out;
  for (const double x : numbers(c, name)) out.push_back(x > 0.5);
  return out;
}

std::vector<float> floats(const std::vector<double>& v) {
  return {v.begin(), v.end()};
}

ControllerNet network(Case& c) {
  const nlohmann::json& j = c.config();
  ControllerNet net({j.at("num_layers"), j.value("embed_dim", 64), j.value("hidden_dim", 256)});
  for (const Param& p : parameters(net)) {
    if (!(c.weight_shape(p.name) == p.shape)) {
      throw Error(ErrorCode::format, fmt::format("{} is {}, the config makes it {}", p.name,
                                                 c.weight_shape(p.name).str(), p.shape.str()));
    }
    *p.tensor = c.weight(p.name);
  }
  return net;
}

RouteInput input(const nlohmann::json& j, double sigma) {
  return {sigma, j.value("cfg_scale", 1.0), j.value("width", int64_t{1}), j.value("height", int64_t{1})};
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

Check number_check(const std::string& name, double got, double want, double tolerance, double floor) {
  Check k;
  k.tensor = name;
  k.tolerance = tolerance;
  k.error = std::fabs(got - want) / std::max(std::fabs(want), floor);
  k.passed = k.error <= tolerance;
  return k;
}

void check_metrics(Case& c, const std::string& tag, const nlohmann::json& wanted, const NamedValues& got) {
  for (const auto& [name, want] : wanted.items()) {
    const auto it = got.find(name);
    Check k = number_check(tag + "." + name, it == got.end() ? NAN : it->second, want.get<double>(),
                           kMetricTolerance, kMetricFloor);
    if (it == got.end()) k.note = "not computed";
    c.check(k);
  }
}

PolicyTrainOptions trainer_options(const nlohmann::json& config) {
  const nlohmann::json t = config.value("trainer", nlohmann::json::object());
  PolicyTrainOptions o;
  o.lr = t.value("learning_rate", 1e-3);
  o.clip = t.value("grad_clip_norm", 1.0);
  o.reward.target_ttr_ratio = t.value("target_ttr_ratio", 0.7);
  o.reward.lambda_eff = t.value("lambda_eff", 1.0);
  o.reward.lambda_entropy = t.value("lambda_entropy", 0.1);
  o.floor = t.value("reward_baseline_quality_floor", -0.3);
  o.floor_on = FloorOn::reward;
  o.entropy_over_all = true;
  o.weight_decay = config.value("adamw", nlohmann::json::object()).value("weight_decay", 0.01);
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
    const std::vector<double> want = numbers(c, "out." + tag + "." + p.name);
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
  double total = 0, weighted = 0;
  const double most = largest_sigma(t);
  for (size_t n = 0, i = 0; n < t.decisions.size(); ++n) {
    for (const float p : t.decisions[n].probability) {
      const double value = log_probability(mask[i] > 0.5, static_cast<double>(p));
      total += value;
      weighted += sigma_weight(t.inputs[n].sigma, most) * value;
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
  c.out(tag + ".sigma_weighted_default", floats({weighted}));
  c.out(tag + ".sigma_weighted_max", floats({weighted}));
  c.out(tag + ".ttr_fraction", floats(s.student));
  c.out(tag + ".summary", floats({s.entropy_all, s.full_eligible, s.full_overall, s.expected_full_eligible,
                                  s.expected_full_overall}));
}

double table_number(const nlohmann::json& j) {
  return j.is_string() ? std::strtod(j.get<std::string>().c_str(), nullptr) : j.get<double>();
}

}  // namespace

void run_ttr_controller(Case& c) {
  c.tolerance("out.", 5e-4);
  c.tolerance("mid.", 5e-4);
  c.tolerance("grad.", 2e-3);
  const ControllerNet net = network(c);
  for (const auto& [tag, call] : c.config().at("calls").items()) {
    const ErrorContext context(tag);
    const std::vector<RouteInput> inputs{input(call, call.at("sigma").get<double>())};
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
  const std::vector<uint8_t> ready = flags(c, "in.ready_mask");
  const std::vector<uint8_t> all(ready.size(), 1);
  PolicyOptions policy;
  policy.noise = ActionNoise::gumbel;
  std::vector<RouteInput> inputs;
  for (const double sigma : numbers(c, "in.sigmas")) inputs.push_back(input(c.config(), sigma));
  for (const std::string& tag : tags(c)) {
    const ErrorContext context(tag);
    const std::vector<uint8_t>& eligible = tag == "ready" ? ready : all;
    const std::string own = "in." + tag + ".uniform";
    const Trajectory t =
        draw(net, inputs, eligible, numbers(c, c.file().has(own) ? own : "in.uniform"), policy);
    policy_outputs(c, tag, t, eligible);
    ControllerNet one = net, two = net;
    PolicyTrainer everything(one, all, objective_options()), able(two, ready, objective_options());
    c.out(tag + ".recompute_no_eligible", floats({objective(everything, t)}));
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
    const std::vector<float> logits = c.file().read_f32("in." + call + ".logits");
    const std::vector<uint8_t> eligible(logits.size(), 1);
    PolicyOptions policy;
    double threshold = 0, temperature = 1, speed = 0;
    const bool drawn = std::sscanf(what.c_str(), "stochastic_t%lf_T%lf", &threshold, &temperature) == 2;
    if (drawn || std::sscanf(what.c_str(), "threshold_t%lf_T%lf", &threshold, &temperature) == 2) {
      policy.threshold = threshold;
      policy.temperature = temperature;
    } else if (std::sscanf(what.c_str(), "mask_q%lf", &speed) == 1) {
      policy.threshold = quality_threshold(speed);
    } else {
      throw Error(ErrorCode::unsupported, "unknown policy '" + what + "'");
    }
    policy.kind = drawn ? PolicyKind::stochastic : PolicyKind::threshold;
    const std::vector<double> uniform = numbers(c, "in." + call + ".uniform");
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
  for (const auto& row : c.config().value("rows", nlohmann::json::array())) {
    c.check(number_check(fmt::format("threshold at quality_speed {}", row.at("quality_speed").get<double>()),
                         quality_threshold(row.at("quality_speed")), row.at("threshold"), 1e-12, 1));
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
  const auto& steps = c.config().at("steps");
  for (size_t i = 0; i < steps.size(); ++i) {
    const auto& step = steps[i];
    const std::string tag = fmt::format("step{}", i);
    const ErrorContext context(tag);
    const std::string able = "in." + tag + ".eligible";
    trainer.set_eligible(c.file().has(able) ? flags(c, able) : std::vector<uint8_t>(layers, 1));
    RouteDecision d;
    for (const double full : numbers(c, "in." + tag + ".mask")) d.student.push_back(full < 0.5);
    NamedValues m =
        trainer.update_whole_run(input(step, step.at("sigma").get<double>()), d, step.at("reward"));
    losses.push_back(static_cast<float>(m.at("policy_loss")));
    baselines.push_back(static_cast<float>(m.at("reward_baseline")));
    m["total_loss"] = m.at("reinforce_total_loss");
    for (const char* suffix : {"", "_overall"}) {
      const double mask = m.at(std::string("mask_mean") + suffix);
      m[std::string("full_attn_mask_mean") + suffix] = mask;
      m[std::string("ttr_mask_mean") + suffix] = 1 - mask;
    }
    m["eligible_layer_count"] = m.at("eligible_ttr_layers");
    m["forced_full_layer_count"] = m.at("forced_full_layers");
    m["total_layer_count"] = static_cast<double>(layers);
    m["reward_count"] = static_cast<double>(trainer.baseline().count());
    check_metrics(c, tag, step.value("metrics", nlohmann::json::object()), m);
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
  const std::vector<uint8_t> ready = flags(c, "in.ready_mask");
  PolicyTrainer trainer(net, ready, options);
  PolicyOptions policy;
  policy.noise = ActionNoise::gumbel;
  std::vector<RouteInput> inputs;
  for (const double sigma : c.config().at("sigmas").get<std::vector<double>>())
    inputs.push_back(input(c.config(), sigma));
  const auto rewards = c.config().at("rewards").get<std::vector<double>>();
  for (size_t i = 0; i < rewards.size(); ++i) {
    const std::string tag = fmt::format("iter{}", i);
    const PlayedTrajectory played{draw(net, inputs, ready, numbers(c, "in." + tag + ".uniform"), policy),
                                  rewards[i]};
    c.tolerance("out." + tag + ".mask", 0);
    c.out(tag + ".mask", floats(masks(played.trajectory)));
    NamedValues m = trainer.update({&played, 1});
    m["total_loss"] = m.at("reinforce_total_loss");
    if (c.config().contains("metrics")) check_metrics(c, tag, c.config().at("metrics").at(i), m);
    if (has_prefix(c, "grad." + tag + ".")) put_gradients(c, tag, trainer);
  }
  put_parameters(c, "final", net, options.lr, static_cast<int64_t>(rewards.size()));
}

void run_ttr_reward_loss(Case& c) {
  c.tolerance("out.", kMetricTolerance);
  for (const auto& row : c.config().at("rows")) {
    const std::string tag = fmt::format("case{}", row.at("case").get<int64_t>());
    const ErrorContext context(tag);
    const nlohmann::json& t = row.at("trainer");
    std::vector<std::pair<std::string, double>> weights;
    for (const std::string& name : reward_names())
      weights.emplace_back(name, t.value(name + "_weight", name == "rmse" || name == "cosine" ? 1.0 : 0.0));
    const QualityLoss quality(weights);
    RewardInput in;
    in.student = c.in(tag + ".student");
    in.teacher = c.in(tag + ".teacher");
    QualityLoss::Value value;
    {
      const auto scope = c.tape().record();
      value = quality.whole(in);
    }
    const double full = row.at("actual_full_attn_ratio"), target = t.value("target_ttr_ratio", 0.7),
                 penalty = one_sided_efficiency(full, target), loss = static_cast<double>(value.loss.item());
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
    for (const auto& [name, want] : row.at("metrics").items())
      m.try_emplace(name, 0);  // terms that aren't on
    check_metrics(c, tag, row.at("metrics"), m);
    if (row.contains("reward_without_penalty")) {
      c.check(number_check(tag + ".reward", terms.reward, row.at("reward_without_penalty"), kMetricTolerance,
                           kMetricFloor));
    }
    const std::string grad = "in." + tag + ".student";
    if (!c.file().has("grad." + grad)) continue;
    double most = 0;
    for (const double g : numbers(c, "grad." + grad)) most = std::max(most, std::fabs(g));
    // Of equal pictures: rounding alone.
    if (most < 1e-6) c.tolerance("grad." + grad, kMetricTolerance, true);
    c.grad(grad, c.tape().backward(value.loss).of(in.student));
  }
}

void run_ttr_reward_tables(Device&, const nlohmann::json& file, Report& report) {
  constexpr double kTolerance = 1e-9, kFloor = 1e-3;
  const auto add = [&](const std::string& name, double got, double want) {
    report.checks.push_back(number_check(name, got, want, kTolerance, kFloor));
  };
  const auto rows = [&](const char* table) { return file.value(table, nlohmann::json::array()); };
  for (const auto& row : rows("baseline_ema")) {
    RewardBaseline baseline(table_number(row.at("floor")), FloorOn::reward, row.value("decay", 0.95));
    for (size_t i = 0; i < row.at("rewards").size(); ++i) {
      const double r = table_number(row.at("rewards")[i]);
      baseline.update(r, r);
      add("baseline_ema", baseline.value(), table_number(row.at("baseline_after")[i]));
    }
  }
  for (const auto& row : rows("sigma_reward_terms")) {
    const RewardTerms t =
        reward_terms({table_number(row.at("target_ttr_ratio")), table_number(row.at("lambda_eff")),
                      table_number(row.at("lambda_entropy"))},
                     table_number(row.at("reward")), table_number(row.at("entropy")),
                     table_number(row.at("actual_full_attn_ratio")), table_number(row.at("baseline")));
    const NamedValues got{{"target_ttr_ratio", t.target_ttr_ratio},
                          {"target_full_attn_ratio", t.target_full_attn_ratio},
                          {"efficiency_penalty", t.efficiency_penalty},
                          {"efficiency_penalty_weighted", t.efficiency_penalty_weighted},
                          {"entropy_bonus", t.entropy_bonus},
                          {"reward_value", t.reward},
                          {"baselined_reward", t.advantage}};
    for (const auto& [name, want] : row.at("result").items()) {
      add("sigma_reward_terms." + name, got.count(name) ? got.at(name) : NAN, table_number(want));
    }
  }
  for (const auto& row : rows("summarize_step_ttr")) {
    std::vector<std::pair<double, double>> steps;
    for (const auto& s : row.at("steps")) steps.emplace_back(table_number(s.at(0)), table_number(s.at(1)));
    const TrajectorySummary s = summarise_trajectory(steps, table_number(row.at("sigma_fallback")));
    const NamedValues got{{"ttr_ratio_high_sigma", s.ttr_ratio_high_sigma},
                          {"ttr_ratio_low_sigma", s.ttr_ratio_low_sigma},
                          {"ttr_ratio_spread", s.ttr_ratio_spread},
                          {"steps_per_trajectory", s.steps_per_trajectory},
                          {"sigma", s.sigma}};
    for (const auto& [name, want] : row.at("result").items()) {
      add("summarize_step_ttr." + name, got.count(name) ? got.at(name) : NAN, table_number(want));
    }
  }
  for (const auto& row : rows("checkpoint_step"))
    add("checkpoint_step", checkpoint_due(row.at("step").get<int64_t>() - 1, row.at("step"), row.at("every")),
        row.at("result").get<bool>() ? 1 : 0);
}

}  // namespace vkflux::verify
