// The controller's training loop: draw plans, play them, learn from what they were worth.
//
// Every draw is a function of (seed, iteration, plan, step, layer), so a checkpoint needs no generator state
// and a resumed run gives the same bits as one that never stopped.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "train/controller/policy_trainer.h"
#include "train/controller/routing_task.h"
#include "train/run_loop.h"

namespace vkflux {

struct ControllerTrainOptions {
  PolicyTrainOptions policy;
  int64_t iterations = 300;
  int64_t plans = 1;  // played on the same pictures in an iteration; from 2 on they are each other's baseline
  ActionNoise noise = ActionNoise::logistic;
  bool sigma_aware = true;  // false: one decision, at the first step's sigma, for the whole run
  uint64_t seed = 0;
  int64_t log_every = 10;
};

class ControllerTrainer : public Resumable {
 public:
  /// Only eligible layers (1) may use their student. net and task must outlive the trainer.
  ControllerTrainer(ControllerNet& net, const BackboneLayout& model, std::vector<uint8_t> eligible,
                    RoutingTask& task, const ControllerTrainOptions& options);

  /// One iteration. Metrics of spec 11.2 go to the sinks at the first step, every log_every, and at the last.
  void step() override;
  int64_t done() const override { return step_; }
  int64_t steps_done() const { return step_; }
  bool finished() const override { return step_ >= options_.iterations; }
  /// Tells the sinks that training is complete.
  void complete();
  /// Of the last iteration, without their prefix.
  const NamedValues& latest() const { return latest_; }
  const PolicyTrainer& policy() const { return policy_; }

  void add_sink(std::unique_ptr<MetricSink> sink) override { sinks_.push_back(std::move(sink)); }
  void save(const std::string& path) override;
  /// Refuses a file of another transformer or network.
  void load(const std::string& path) override;

 private:
  Trajectory draw(int64_t plan) const;
  void report(const PlayedQuality& quality);

  ControllerNet& net_;
  BackboneLayout model_;
  RoutingTask& task_;
  ControllerTrainOptions options_;
  PolicyTrainer policy_;
  int64_t step_ = 0;
  NamedValues latest_;
  std::vector<std::unique_ptr<MetricSink>> sinks_;
};

/// The prefix of every metric.
inline constexpr const char* kControllerMetrics = "flux2ttr_controller";

}  // namespace vkflux
