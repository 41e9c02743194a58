#include "train/controller/reinforce.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "vk/error.h"

namespace vkflux {
namespace {

/// Distribution of a sum of independent flags without flag p, from the one with it. Solved from the end that
/// divides by the larger of p and 1 - p, which is stable.
std::vector<double> without(const std::vector<double>& d, double p) {
  const size_t n = d.size() - 1;
  std::vector<double> q(n);
  if (p <= 0.5) {
    for (size_t k = 0; k < n; ++k) q[k] = (d[k] - (k ? p * q[k - 1] : 0)) / (1 - p);
  } else {
    for (size_t k = n; k-- > 0;) q[k] = (d[k + 1] - (k + 1 < n ? (1 - p) * q[k + 1] : 0)) / p;
  }
  return q;
}

constexpr double kWeightFloor = 0.1, kLeastSigma = 1e-8, kClamp = 1e-7, kWholeRunEps = 1e-8;

}  // namespace

TrajectoryShares trajectory_shares(const Trajectory& t, std::span<const uint8_t> eligible) {
  TrajectoryShares out;
  const auto layers = static_cast<double>(eligible.size());
  const auto able = static_cast<double>(std::count(eligible.begin(), eligible.end(), uint8_t{1}));
  if (t.decisions.empty() || layers == 0) return out;
  out.full_eligible = out.expected_full_eligible = able > 0 ? 0 : 1;
  out.full_overall = out.expected_full_overall = out.mask_mean_overall = out.probs_mean_overall = 0;
  const double share = 1 / static_cast<double>(t.decisions.size());
  for (const RouteDecision& d : t.decisions) {
    double full = 0, expected = 0, mask = 0, probs = 0, entropy = 0, entropy_all = 0;
    for (size_t l = 0; l < eligible.size(); ++l) {
      const double p = static_cast<double>(d.probability[l]), f = d.student[l] ? 0 : 1,
                   h = decision_entropy(p);
      mask += f;
      probs += p;
      entropy_all += h;
      if (!eligible[l]) continue;
      full += f;
      expected += p;
      entropy += h;
    }
    const double forced = layers - able;
    if (able > 0) {
      out.full_eligible += share * full / able;
      out.expected_full_eligible += share * expected / able;
      out.entropy_eligible += share * entropy / able;
    }
    out.full_overall += share * (full + forced) / layers;
    out.expected_full_overall += share * (expected + forced) / layers;
    out.mask_mean_overall += share * mask / layers;
    out.probs_mean_overall += share * probs / layers;
    out.entropy_all += share * entropy_all / layers;
    out.student.push_back(able > 0 ? 1 - full / able : 0);
  }
  return out;
}

TrajectorySummary summarise_trajectory(std::span<const std::pair<double, double>> steps,
                                       double sigma_fallback) {
  TrajectorySummary out;
  out.sigma = sigma_fallback;
  if (steps.empty()) return out;
  double most = steps[0].first, high = 0, low = 0, sum = 0;
  int64_t highs = 0, lows = 0;
  for (const auto& [sigma, f] : steps) most = std::max(most, sigma);
  for (const auto& [sigma, f] : steps) {
    sum += sigma;
    if (sigma > 0.5 * most) {
      high += f;
      ++highs;
    }
    if (sigma < 0.2 * most) {
      low += f;
      ++lows;
    }
  }
  out.ttr_ratio_high_sigma = highs ? high / static_cast<double>(highs) : 0;
  out.ttr_ratio_low_sigma = lows ? low / static_cast<double>(lows) : 0;
  out.ttr_ratio_spread = out.ttr_ratio_high_sigma - out.ttr_ratio_low_sigma;
  out.steps_per_trajectory = static_cast<double>(steps.size());
  out.sigma = sum / out.steps_per_trajectory;
  return out;
}

double sigma_weight(double sigma, double sigma_max) {
  return std::max(kWeightFloor, 1 - std::clamp(sigma / std::max(kLeastSigma, sigma_max), 0.0, 1.0));
}

double largest_sigma(const Trajectory& t) {
  double most = kLeastSigma;
  for (const RouteInput& in : t.inputs) most = std::max(most, in.sigma);
  return most;
}

RewardTerms reward_terms(const RewardOptions& options, double quality, double entropy, double full_ratio,
                         double baseline) {
  RewardTerms t;
  t.target_ttr_ratio = options.target_ttr_ratio;
  t.target_full_attn_ratio = 1 - std::clamp(options.target_ttr_ratio, 0.0, 1.0);
  t.efficiency_penalty = std::fabs(full_ratio - t.target_full_attn_ratio);
  t.efficiency_penalty_weighted = std::max(0.0, options.lambda_eff) * t.efficiency_penalty;
  t.entropy_bonus = std::max(0.0, options.lambda_entropy) * entropy;
  t.reward = quality - t.efficiency_penalty_weighted + t.entropy_bonus;
  t.advantage = t.reward - baseline;
  return t;
}

FloorOn parse_floor_on(const std::string& text) {
  if (text == "quality") return FloorOn::quality;
  if (text == "reward") return FloorOn::reward;
  if (text == "off") return FloorOn::off;
  throw Error(ErrorCode::invalid_argument,
              fmt::format("baseline floor on '{}': expected quality, reward or off", text));
}

void RewardBaseline::update(double reward, double quality) {
  mean_quality_ = count_ ? decay_ * mean_quality_ + (1 - decay_) * quality : quality;
  double r = reward;
  if (on_ == FloorOn::reward) r = std::max(reward, floor_);
  if (on_ == FloorOn::quality && mean_quality_ >= floor_) r += std::max(0.0, floor_ - quality);
  value_ = count_ ? decay_ * value_ + (1 - decay_) * r : r;
  ++count_;
}

void RewardBaseline::restore(double value, int64_t count, double mean_quality) {
  value_ = value;
  count_ = count;
  mean_quality_ = mean_quality;
}

PolicyTerm trajectory_term(double logit, bool full, double weight) {
  const double p = logistic(logit);
  const bool clamped = p < kClamp || p > 1 - kClamp;
  return {weight * log_probability(full, p), clamped ? 0 : weight * ((full ? 1 : 0) - p)};
}

PolicyTerm whole_run_term(double logit, bool full) {
  const double p = logistic(logit), q = 1 - p;
  if (full) return {std::log(p + kWholeRunEps), p * q / (p + kWholeRunEps)};
  return {std::log(q + kWholeRunEps), -p * q / (q + kWholeRunEps)};
}

ExpectedEfficiency expected_efficiency(std::span<const double> full, double target_full) {
  ExpectedEfficiency out;
  const auto n = static_cast<double>(full.size());
  std::vector<double> d{1};  // of the number of decisions for full attention
  for (const double p : full) {
    d.push_back(0);
    for (size_t k = d.size() - 1; k > 0; --k) d[k] = (1 - p) * d[k] + p * d[k - 1];
    d[0] *= 1 - p;
  }
  const auto miss = [&](size_t k) { return std::fabs(static_cast<double>(k) / n - target_full); };
  for (size_t k = 0; k < d.size() && n > 0; ++k) out.penalty += d[k] * miss(k);
  for (const double p : full) {
    const std::vector<double> q = without(d, p);
    double slope = 0;
    for (size_t k = 0; k < q.size(); ++k) slope += q[k] * (miss(k + 1) - miss(k));
    out.gradient.push_back(p * (1 - p) * slope);
  }
  return out;
}

double entropy_gradient(double logit) {
  const double p = logistic(logit);
  return -logit * p * (1 - p);
}

}  // namespace vkflux
