#include "train/controller/policy_trainer.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <optional>

#include "autograd/ops.h"
#include "autograd/tape.h"
#include "vk/error.h"

namespace vkflux {
namespace {

constexpr const char* kMoment1 = "optimizer.m.";
constexpr const char* kMoment2 = "optimizer.v.";
// The clamp of a decision that stands for a whole run.
constexpr double kEntropyClamp = 1e-6;

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

std::vector<float> values(const io::SafetensorsFile& file, const std::string& name, const Tensor& like) {
  std::vector<float> data = file.read_f32(name);
  if (static_cast<int64_t>(data.size()) != like.numel()) {
    throw Error(ErrorCode::format,
                fmt::format("{} has {} values, {} are needed", name, data.size(), like.numel()));
  }
  if (!std::all_of(data.begin(), data.end(), [](float x) { return std::isfinite(x); }))
    throw Error(ErrorCode::format, fmt::format("{} holds values that aren't finite", name));
  return data;
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
    : net_(net), options_(options), baseline_(options.floor, options.floor_on) {
  set_eligible(std::move(eligible));
  const std::vector<Param> params = parameters(net_);
  Device& device = params.front().tensor->device();
  const auto arena = [&] { return std::make_unique<Arena>(device, layout(params)); };
  arenas_ = {arena(), arena(), arena(), arena()};
  for (size_t i = 0; i < params.size(); ++i) {
    op::accumulate((*arenas_.param)[i], *params[i].tensor);
    names_.push_back(params[i].name);
  }
  place(params, *arenas_.param);
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

std::vector<std::pair<std::string, Tensor>> PolicyTrainer::gradients() const {
  std::vector<std::pair<std::string, Tensor>> out;
  for (size_t i = 0; i < names_.size(); ++i) out.emplace_back(names_[i], (*arenas_.grad)[i]);
  return out;
}

double PolicyTrainer::descend(std::span<const RouteInput> inputs, const std::vector<float>& seed) {
  arenas_.grad->flat().fill_zero();
  Device& device = arenas_.grad->flat().device();
  const ProfileScope whole(device.profiler(), "update");
  Tape tape;
  Grads grads;
  for (size_t i = 0; i < names_.size(); ++i) {
    tape.watch((*arenas_.param)[i]);
    grads.collect((*arenas_.param)[i], (*arenas_.grad)[i]);
  }
  Tensor logits;
  {
    const auto scope = tape.record();
    logits = net_.forward(inputs);
  }
  tape.backward({{logits, Tensor::from(device, std::span<const float>(seed), logits.shape())}}, grads);
  const Tensor norm = global_norm(arenas_.grad->flat());
  const AdamWOptions adam{options_.lr, 0.9, 0.999, 1e-8, options_.weight_decay};
  adamw(arenas_.param->flat(), arenas_.grad->flat(), arenas_.m->flat(), arenas_.v->flat(), adam, ++updates_,
        options_.clip > 0 ? clip_scale(norm, static_cast<float>(options_.clip)) : Tensor());
  const double value = norm.item();
  if (!std::isfinite(value)) {
    throw Error(ErrorCode::verification_failed,
                fmt::format("the controller's gradient became {} in update {}", value, updates_));
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
  for (size_t i = 0; i < names_.size(); ++i) {
    for (const auto& [prefix, arena] :
         {std::pair{kMoment1, arenas_.m.get()}, std::pair{kMoment2, arenas_.v.get()}}) {
      const Tensor& t = (*arena)[i];
      tensors.push_back(
          io::tensor_data(prefix + names_[i], {t.shape().begin(), t.shape().end()}, t.to_host()));
    }
  }
  metadata["optimizer.step"] = std::to_string(updates_);
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
  const size_t n = names_.size();
  std::vector<std::vector<float>> param, m, v;
  for (size_t i = 0; i < n; ++i) param.push_back(values(file, names_[i], (*arenas_.param)[i]));
  const std::optional<double> step = number(file, "optimizer.step");
  bool usable = step && *step >= 1;
  try {
    for (size_t i = 0; usable && i < n; ++i) {
      m.push_back(values(file, kMoment1 + names_[i], (*arenas_.m)[i]));
      v.push_back(values(file, kMoment2 + names_[i], (*arenas_.v)[i]));
    }
  } catch (const Error& e) {
    if (e.code() != ErrorCode::format) throw;
    spdlog::warn("{}", e.what());
    usable = false;
  }
  warn_differences(file);
  for (size_t i = 0; i < n; ++i) {
    (*arenas_.param)[i].copy_from_host(std::span<const float>(param[i]));
    if (!usable) continue;
    (*arenas_.m)[i].copy_from_host(std::span<const float>(m[i]));
    (*arenas_.v)[i].copy_from_host(std::span<const float>(v[i]));
  }
  updates_ = usable ? static_cast<int64_t>(*step) : 0;
  if (!usable) {
    arenas_.m->flat().fill_zero();
    arenas_.v->flat().fill_zero();
    spdlog::warn("the checkpoint has no usable optimiser state: it starts afresh");
  }
  const std::optional<double> value = number(file, "reward_baseline"), count = number(file, "reward_count");
  if (value && count && *count >= 0) {
    baseline_.restore(*value, static_cast<int64_t>(*count),
                      number(file, "reward_mean_quality").value_or(*value));
  }
}

}  // namespace vkflux
