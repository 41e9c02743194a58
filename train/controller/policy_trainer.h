// REINFORCE over a controller's parameters: trajectories and what they were worth in, one AdamW step out.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "model/routing/controller.h"
#include "train/controller/reinforce.h"
#include "train/optimise.h"

namespace vkflux {

struct PolicyTrainOptions {
  double lr = 1e-4, weight_decay = 0.01;
  double clip = 1;  // largest gradient norm, 0 = off
  RewardOptions reward;
  double floor = -0.3;
  FloorOn floor_on = FloorOn::quality;
  bool entropy_over_all = false;  // the reference's: of all layers, not of the eligible ones
  bool entropy_gradient = false;  // also climb the entropy itself; else it only shifts the reward
  /// Follow the exact gradient of the expected efficiency term instead of the drawn one's. The objective is
  /// the same, but the luck of a trajectory's student share no longer drowns what its quality says.
  bool exact_efficiency = false;
};

/// A trajectory and its quality, minus the quality loss.
struct PlayedTrajectory {
  Trajectory trajectory;
  double quality = 0;
};

using NamedValues = std::map<std::string, double>;

class PolicyTrainer {
 public:
  /// Gives the controller's parameters to the optimiser (values kept). eligible[l] = 1: layer l's decisions
  /// are trained. Error invalid_argument when none is, or their number isn't the controller's.
  PolicyTrainer(ControllerNet& net, std::vector<uint8_t> eligible, const PolicyTrainOptions& options);

  /// One step from trajectories played with the current parameters. With one, its advantage is over the
  /// running baseline; with several (of one task, so that they compare), over the mean of the others.
  /// -> the metrics' values, means over the trajectories.
  NamedValues update(std::span<const PlayedTrajectory> played);
  /// One step from one decision that was used for a whole run.
  NamedValues update_whole_run(const RouteInput& input, const RouteDecision& decision, double quality);

  void set_eligible(std::vector<uint8_t> eligible);
  const std::vector<uint8_t>& eligible() const { return eligible_; }
  const PolicyTrainOptions& options() const { return options_; }
  const RewardBaseline& baseline() const { return baseline_; }
  /// Its gradients are those of the last update, before clipping.
  const Optimiser& optimiser() const { return optimiser_; }

  /// Optimiser state ("optimizer.m.NAME", "optimizer.v.NAME") and baseline, beside append_controller().
  void append(std::vector<io::TensorData>& tensors, std::map<std::string, std::string>& metadata) const;
  /// Parameters and state of such a file. The options of this object win over the file's, with a warning for
  /// every difference; a file without usable optimiser state gives a fresh one, with a warning. Everything is
  /// checked before anything is changed.
  void restore(const io::SafetensorsFile& file);

 private:
  struct Judged {
    TrajectoryShares shares;
    double entropy = 0;
    RewardTerms terms;
  };
  std::vector<Judged> judge(std::span<const PlayedTrajectory> played) const;
  /// Writes d loss / d logits of one trajectory that is `share` of the update; -> its weighted
  /// log-likelihood.
  double policy_seed(const Trajectory& t, double advantage, double share, std::span<const float> logits,
                     std::span<float> seed) const;
  /// Backward from d loss / d logits[inputs, layers], then clipping and AdamW; the gradient's norm.
  double descend(std::span<const RouteInput> inputs, const std::vector<float>& seed);
  NamedValues shared_metrics(const RewardTerms& terms, double quality, double entropy,
                             const TrajectoryShares& shares) const;
  void warn_differences(const io::SafetensorsFile& file) const;

  ControllerNet& net_;
  std::vector<uint8_t> eligible_;
  PolicyTrainOptions options_;
  RewardBaseline baseline_;
  Optimiser optimiser_;
};

}  // namespace vkflux
