// The arithmetic of the controller's training that needs no device: what a trajectory did, its reward, the
// baseline, the policy gradient with respect to the logits.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "model/routing/policy.h"
#include "model/routing/router.h"

namespace vkflux {

/// One sampling run: what was known and what was decided at each step.
struct Trajectory {
  std::vector<RouteInput> inputs;        // [S]
  std::vector<RouteDecision> decisions;  // [S]
};

/// Shares of full attention, means over the steps; 1 where nothing can be counted.
struct TrajectoryShares {
  double full_eligible = 1, full_overall = 1;                    // as decided
  double expected_full_eligible = 1, expected_full_overall = 1;  // by the probabilities
  double mask_mean_overall = 1, probs_mean_overall = 1;          // of all layers, forced ones as they are
  double entropy_eligible = 0, entropy_all = 0;                  // nats a decision
  std::vector<double> student;                                   // [S] share of the eligible layers
};
TrajectoryShares trajectory_shares(const Trajectory& t, std::span<const uint8_t> eligible);

/// Where the student was used along the noise levels.
struct TrajectorySummary {
  double ttr_ratio_high_sigma = 0, ttr_ratio_low_sigma = 0, ttr_ratio_spread = 0, steps_per_trajectory = 0,
         sigma = 0;
};
/// Pairs (sigma, student share); sigma_fallback: of a run without steps.
TrajectorySummary summarise_trajectory(std::span<const std::pair<double, double>> steps,
                                       double sigma_fallback);

/// Late steps weigh most: max(0.1, 1 - sigma / sigma_max).
double sigma_weight(double sigma, double sigma_max);
/// The largest sigma of the trajectory, at least 1e-8.
double largest_sigma(const Trajectory& t);

struct RewardOptions {
  double target_ttr_ratio = 0.7;  // wanted student share of the eligible layers
  double lambda_eff = 1, lambda_entropy = 0.1;
};
struct RewardTerms {
  double target_ttr_ratio = 0, target_full_attn_ratio = 0;
  double efficiency_penalty = 0, efficiency_penalty_weighted = 0, entropy_bonus = 0;
  double reward = 0, advantage = 0;
};
/// reward = quality - lambda_eff |full share - target| + lambda_entropy * entropy; advantage over `baseline`.
RewardTerms reward_terms(const RewardOptions& options, double quality, double entropy, double full_ratio,
                         double baseline);

/// What the baseline's floor is compared with. The reference compares the whole reward, which with typical
/// rewards below the floor gives every action a negative advantage.
enum class FloorOn {
  quality,  // the quality part, and only while its mean is above the floor
  reward,   // the whole reward, as the reference
  off
};
/// "quality", "reward" or "off".
FloorOn parse_floor_on(const std::string& text);

/// Exponential mean of rewards.
class RewardBaseline {
 public:
  explicit RewardBaseline(double floor = -0.3, FloorOn on = FloorOn::quality, double decay = 0.95)
      : floor_(floor), on_(on), decay_(decay) {}
  double value() const { return value_; }  // 0 before the first update
  int64_t count() const { return count_; }
  double mean_quality() const { return mean_quality_; }
  void update(double reward, double quality);
  void restore(double value, int64_t count, double mean_quality);

 private:
  double floor_;
  FloorOn on_;
  double decay_;
  double value_ = 0, mean_quality_ = 0;
  int64_t count_ = 0;
};

/// The part of the log-likelihood that a layer and a step contribute.
struct PolicyTerm {
  double value = 0;     // weight * ln P(decision)
  double gradient = 0;  // with respect to the logit
};
/// Of a trajectory: p clamped to [1e-7, 1 - 1e-7], no gradient where it was.
PolicyTerm trajectory_term(double logit, bool full, double weight);
/// Of one decision for a whole run: ln(p + 1e-8), no clamp.
PolicyTerm whole_run_term(double logit, bool full);
/// The mean of |full share - target| over all ways that independent decisions with these probabilities of
/// full attention can fall, and its derivative with respect to each logit: the efficiency term's policy
/// gradient without the noise of drawing.
struct ExpectedEfficiency {
  double penalty = 0;
  std::vector<double> gradient;
};
ExpectedEfficiency expected_efficiency(std::span<const double> full, double target_full);
/// d entropy / d logit of one decision.
double entropy_gradient(double logit);

}  // namespace vkflux
