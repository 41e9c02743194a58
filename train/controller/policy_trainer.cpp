#include "train/controller/policy_trainer.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <optional>

#include "train/checkpoint.h"
#include "vk/error.h"

namespace vkflux {
namespace {

// The clamp of a decision that stands for a whole run.
constexpr double kEntropyClamp = 1e-6;

StateNames moments() {
  return {{}, "optimizer.m.", "optimizer.v.", {}};
}

std::string exact(double x) {
  return fmt::format("{:.17g}", x);
}

/// A metadata entry as a number; none when it is absent or isn't one.
std::optional<double> number(const io::SafetensorsFile& file, const char* key) {
  const auto it = file.metadata().find(key);
  if (it == file.metadata().end() || it->second.empty()) return {};
  char* end = nullptr;
  const double x = std::strtod(it->second.c_str(), &end);
  constexpr double kMost = 1e15;  // a count must fit an integer
  return *end == 0 && std::abs(x) <= kMost ? std::optional(x) : std::nullopt;
}

void add_scaled(NamedValues& into, const NamedValues& values, double scale) {
  for (const auto& [name, value] : values) into[name] += scale * value;
}

NamedValues summary_metrics(const TrajectorySummary& s) {
  return {{"ttr_ratio_high_sigma", s.ttr_ratio_high_sigma},
          {"ttr_ratio_low_sigma", s.ttr_ratio_low_sigma},
          {"ttr_ratio_spread", s.ttr_ratio_spread},
          {"steps_per_trajectory", s.steps_per_trajectory},
          {"sigma", s.sigma}};
}

}  // namespace

PolicyTrainer::PolicyTrainer(ControllerNet& net, std::vector<uint8_t> eligible,
                             const PolicyTrainOptions& options)
    : net_(net),
      options_(options),
      baseline_(options.floor, options.floor_on),
      optimiser_(parameters(net).front().tensor->device(), trainables(parameters(net))) {
  set_eligible(std::move(eligible));
}

void PolicyTrainer::set_eligible(std::vector<uint8_t> eligible) {
  if (static_cast<int64_t>(eligible.size()) != net_.config().layers) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("a controller of {} layers for {} that may be replaced", net_.config().layers,
                            eligible.size()));
  }
  if (std::count(eligible.begin(), eligible.end(), uint8_t{1}) == 0) {
    throw Error(ErrorCode::invalid_argument,
                "no layer's student is ready, so there is nothing to decide: distil longer, or raise the "
                "readiness threshold");
  }
  eligible_ = std::move(eligible);
}

double PolicyTrainer::descend(std::span<const RouteInput> inputs, const std::vector<float>& seed) {
  Device& device = optimiser_.param().flat().device();
  const ProfileScope whole(device.profiler(), "update");
  const Tensor norm = gradients({&optimiser_}, 1, [&](int64_t) {
    const Tensor logits = net_.forward(inputs);
    return Seeded{logits, Tensor::from(device, std::span<const float>(seed), logits.shape())};
  });
  optimiser_.apply({options_.lr, 0.9, 0.999, 1e-8, options_.weight_decay},
                   gradient_scale(norm, options_.clip));
  const double value = norm.item();
  if (!std::isfinite(value)) {
    throw Error(ErrorCode::verification_failed,
                fmt::format("the controller's gradient became {} in update {}", value, optimiser_.steps()));
  }
  return value;
}

NamedValues PolicyTrainer::shared_metrics(const RewardTerms& t, double quality, double entropy,
                                          const TrajectoryShares& s) const {
  const auto ttr = [](double full) { return std::max(0.0, 1 - full); };
  NamedValues m{{"efficiency_penalty", t.efficiency_penalty},
                {"efficiency_penalty_weighted", t.efficiency_penalty_weighted},
                {"target_ttr_ratio", t.target_ttr_ratio},
                {"target_full_attn_ratio", t.target_full_attn_ratio},
                {"reward", t.reward},
                {"reward_quality", quality},
                {"baselined_reward", t.advantage},
                {"entropy", entropy},
                {"entropy_bonus", t.entropy_bonus},
                {"lambda_eff", std::max(0.0, options_.reward.lambda_eff)},
                {"lambda_entropy", std::max(0.0, options_.reward.lambda_entropy)},
                {"mask_mean", s.full_eligible},
                {"mask_mean_overall", s.mask_mean_overall},
                {"probs_mean", s.expected_full_eligible},
                {"probs_mean_overall", s.probs_mean_overall}};
  const auto pair = [&](const std::string& prefix, const std::string& suffix, double full) {
    m[prefix + "full_attn" + suffix] = full;
    m[prefix + "ttr" + suffix] = ttr(full);
  };
  pair("", "_ratio", s.full_eligible);
  pair("", "_eligible", s.full_eligible);
  pair("", "_overall", s.full_overall);
  pair("actual_", "_ratio", s.full_eligible);
  pair("actual_", "_ratio_overall", s.full_overall);
  pair("expected_", "_ratio", s.expected_full_eligible);
  pair("expected_", "_ratio_overall", s.expected_full_overall);
  pair("expected_", "_eligible", s.expected_full_eligible);
  pair("expected_", "_overall", s.expected_full_overall);
  const auto able = static_cast<double>(std::count(eligible_.begin(), eligible_.end(), uint8_t{1}));
  m["eligible_ttr_layers"] = able;
  m["forced_full_layers"] = static_cast<double>(eligible_.size()) - able;
  return m;
}

std::vector<PolicyTrainer::Judged> PolicyTrainer::judge(std::span<const PlayedTrajectory> played) const {
  std::vector<Judged> out;
  double sum = 0;
  for (const PlayedTrajectory& p : played) {
    if (p.trajectory.decisions.empty() || p.trajectory.decisions.size() != p.trajectory.inputs.size())
      throw Error(ErrorCode::invalid_argument, "sampling left no record of its decisions");
    if (!std::isfinite(p.quality))
      throw Error(ErrorCode::verification_failed, fmt::format("the quality of a picture is {}", p.quality));
    Judged j;
    j.shares = trajectory_shares(p.trajectory, eligible_);
    j.entropy = options_.entropy_over_all ? j.shares.entropy_all : j.shares.entropy_eligible;
    j.terms = reward_terms(options_.reward, p.quality, j.entropy, j.shares.full_eligible, baseline_.value());
    sum += j.terms.reward;
    out.push_back(std::move(j));
  }
  const auto others = static_cast<double>(played.size()) - 1;
  double quality = 0;
  for (const PlayedTrajectory& p : played) quality += p.quality;
  for (size_t k = 0; k < out.size(); ++k) {
    RewardTerms& t = out[k].terms;
    if (options_.exact_efficiency) {
      const double mine = played[k].quality;
      t.advantage = mine - (others > 0          ? (quality - mine) / others
                            : baseline_.count() ? baseline_.mean_quality()
                                                : mine);
    } else if (others > 0) {
      t.advantage = t.reward - (sum - t.reward) / others;
    }
  }
  return out;
}

double PolicyTrainer::policy_seed(const Trajectory& t, double advantage, double share,
                                  std::span<const float> logits, std::span<float> seed) const {
  const size_t layers = eligible_.size();
  const double most = largest_sigma(t),
               decisions = static_cast<double>(t.inputs.size()) *
                           static_cast<double>(std::count(eligible_.begin(), eligible_.end(), uint8_t{1})),
               climb = options_.entropy_gradient ? std::max(0.0, options_.reward.lambda_entropy) : 0;
  std::vector<double> full;
  for (size_t i = 0; i < logits.size() && options_.exact_efficiency; ++i) {
    if (eligible_[i % layers]) full.push_back(logistic(static_cast<double>(logits[i])));
  }
  const ExpectedEfficiency efficiency =
      expected_efficiency(full, 1 - std::clamp(options_.reward.target_ttr_ratio, 0.0, 1.0));
  const double price = std::max(0.0, options_.reward.lambda_eff);
  double likelihood = 0;
  for (size_t i = 0, decision = 0; i < logits.size(); ++i) {
    const size_t n = i / layers, l = i % layers;
    if (!eligible_[l]) continue;
    const auto x = static_cast<double>(logits[i]);
    const double weight = sigma_weight(t.inputs[n].sigma, most);
    const PolicyTerm term = trajectory_term(x, !t.decisions[n].student[l], weight);
    likelihood += term.value;
    double up = advantage * term.gradient + climb * entropy_gradient(x) / decisions;
    if (options_.exact_efficiency) up -= price * weight * efficiency.gradient[decision++];
    seed[i] = static_cast<float>(-share * up);
  }
  return likelihood;
}

NamedValues PolicyTrainer::update(std::span<const PlayedTrajectory> played) {
  if (played.empty()) throw Error(ErrorCode::invalid_argument, "a policy update without a trajectory");
  const std::vector<Judged> judged = judge(played);
  std::vector<RouteInput> inputs;
  for (const PlayedTrajectory& p : played)
    inputs.insert(inputs.end(), p.trajectory.inputs.begin(), p.trajectory.inputs.end());
  const std::vector<float> logits = net_.forward(inputs).to_host();
  std::vector<float> seed(logits.size(), 0);
  const double share = 1 / static_cast<double>(played.size());
  NamedValues metrics;
  double loss = 0;
  size_t at = 0;
  for (size_t k = 0; k < played.size(); ++k) {
    const Trajectory& t = played[k].trajectory;
    const Judged& j = judged[k];
    const size_t n = t.inputs.size() * eligible_.size();
    const double likelihood = policy_seed(t, j.terms.advantage, share, std::span(logits).subspan(at, n),
                                          std::span(seed).subspan(at, n));
    at += n;
    loss -= share * j.terms.advantage * likelihood;
    add_scaled(metrics, shared_metrics(j.terms, played[k].quality, j.entropy, j.shares), share);
    std::vector<std::pair<double, double>> pairs;
    for (size_t i = 0; i < t.inputs.size(); ++i) pairs.emplace_back(t.inputs[i].sigma, j.shares.student[i]);
    add_scaled(metrics, summary_metrics(summarise_trajectory(pairs, 0)), share);
  }
  metrics["grad_norm"] = descend(inputs, seed);
  baseline_.update(metrics["reward"], metrics["reward_quality"]);
  metrics["policy_loss"] = metrics["reinforce_total_loss"] = loss;
  metrics["reward_baseline"] = baseline_.value();
  return metrics;
}

NamedValues PolicyTrainer::update_whole_run(const RouteInput& input, const RouteDecision& decision,
                                            double quality) {
  const size_t layers = eligible_.size();
  if (decision.student.size() != layers) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("a decision about {} layers of {}", decision.student.size(), layers));
  }
  const std::vector<RouteInput> inputs{input};
  const std::vector<float> logits = net_.forward(inputs).to_host();
  RouteDecision now = decision;
  double likelihood = 0, entropy = 0;
  std::vector<double> gradient(layers, 0);
  const auto able = static_cast<double>(std::count(eligible_.begin(), eligible_.end(), uint8_t{1}));
  for (size_t l = 0; l < layers; ++l) {
    const double x = static_cast<double>(logits[l]), p = logistic(x);
    now.probability.resize(layers);
    now.probability[l] = static_cast<float>(p);
    if (!eligible_[l]) continue;
    const PolicyTerm term = whole_run_term(x, !decision.student[l]);
    likelihood += term.value;
    gradient[l] = term.gradient;
    const double c = std::clamp(p, kEntropyClamp, 1 - kEntropyClamp);
    entropy -= (c * std::log(c) + (1 - c) * std::log(1 - c)) / able;
  }
  const TrajectoryShares shares = trajectory_shares({inputs, {now}}, eligible_);
  const RewardTerms terms =
      reward_terms(options_.reward, quality, entropy, shares.full_eligible, baseline_.value());
  std::vector<float> seed(layers);
  for (size_t l = 0; l < layers; ++l) {
    double g = -terms.advantage * gradient[l];
    if (options_.entropy_gradient && eligible_[l]) {
      g -= std::max(0.0, options_.reward.lambda_entropy) * entropy_gradient(static_cast<double>(logits[l])) /
           able;
    }
    seed[l] = static_cast<float>(g);
  }
  NamedValues metrics = shared_metrics(terms, quality, entropy, shares);
  metrics["grad_norm"] = descend(inputs, seed);
  baseline_.update(terms.reward, quality);
  metrics["policy_loss"] = metrics["reinforce_total_loss"] = -terms.advantage * likelihood;
  metrics["reward_baseline"] = baseline_.value();
  metrics["sigma"] = input.sigma;
  return metrics;
}

void PolicyTrainer::append(std::vector<io::TensorData>& tensors,
                           std::map<std::string, std::string>& metadata) const {
  expect_finite(optimiser_);  // what append_controller() writes
  append_state(optimiser_, moments(), tensors);
  metadata["optimizer.step"] = std::to_string(optimiser_.steps());
  metadata["learning_rate"] = exact(options_.lr);
  metadata["reward_baseline"] = exact(baseline_.value());
  metadata["reward_count"] = std::to_string(baseline_.count());
  metadata["reward_mean_quality"] = exact(baseline_.mean_quality());
  metadata["reward_baseline_quality_floor"] = exact(options_.floor);
  metadata["lambda_entropy"] = exact(options_.reward.lambda_entropy);
  metadata["lambda_eff"] = exact(options_.reward.lambda_eff);
  metadata["target_ttr_ratio"] = exact(options_.reward.target_ttr_ratio);
}

void PolicyTrainer::warn_differences(const io::SafetensorsFile& file) const {
  const auto compare = [&](const char* key, double now) {
    const std::optional<double> then = number(file, key);
    if (then && *then != now) spdlog::warn("{}: {} in the checkpoint, {} from now on", key, *then, now);
  };
  compare("learning_rate", options_.lr);
  compare("reward_baseline_quality_floor", options_.floor);
  compare("lambda_entropy", options_.reward.lambda_entropy);
  compare("lambda_eff", options_.reward.lambda_eff);
  compare("target_ttr_ratio", options_.reward.target_ttr_ratio);
}

void PolicyTrainer::restore(const io::SafetensorsFile& file) {
  PendingValues parameters, state;
  parameters.take(file, optimiser_, {"", {}, {}, {}});
  const std::optional<double> step = number(file, "optimizer.step");
  bool usable = step && *step >= 1;
  try {
    if (usable) state.take(file, optimiser_, moments());
  } catch (const Error& e) {
    if (e.code() != ErrorCode::format) throw;
    spdlog::warn("{}", e.what());
    usable = false;
  }
  warn_differences(file);
  parameters.apply();
  if (usable) {
    state.apply();
    optimiser_.set_steps(static_cast<int64_t>(*step));
  } else {
    optimiser_.restart();
    spdlog::warn("the checkpoint has no usable optimiser state: it starts afresh");
  }
  const std::optional<double> value = number(file, "reward_baseline"), count = number(file, "reward_count");
  if (value && count && *count >= 0) {
    baseline_.restore(*value, static_cast<int64_t>(*count),
                      number(file, "reward_mean_quality").value_or(*value));
  }
}

}  // namespace vkflux
