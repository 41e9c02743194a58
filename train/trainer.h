// A step of training by a loss: schedule, accumulation, averages, metrics, checkpoints. A trainer supplies
// its parameters and one function, the loss of a micro-batch.
//
// Every random choice is a function of (seed, step, index), so a checkpoint needs no generator state and a
// resumed run gives the same bits as one that never stopped.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "train/optimise.h"
#include "train/run_loop.h"

namespace vkflux {

struct TrainOptions {
  int64_t steps = 1000, batch = 8, accumulate = 1;
  float lr = 1e-3f, final_lr_ratio = 0.02f;  // linear warm-up, then cosine to lr * final_lr_ratio
  int64_t warmup = 100;
  double beta1 = 0.9, beta2 = 0.99, eps = 1e-8, weight_decay = 1e-2;  // decay on matrices only
  float clip = 1.0f;
  float ema = 0;  // 0: no EMA; else min(ema, (1 + step) / (10 + step))
  uint64_t seed = 0;
  int64_t log_every = 10, save_every = 100, sample_every = 0;
};

class Trainer : public Resumable {
 public:
  Trainer(Device& device, TrainOptions options);

  /// One optimiser step. Metrics are read back every log_every steps and handed to the sinks.
  void step() override;
  int64_t done() const override { return optimiser_->steps(); }
  int64_t steps_done() const { return done(); }
  bool finished() const override { return done() >= options_.steps; }
  float learning_rate(int64_t step) const;
  const TrainOptions& options() const { return options_; }

  void add_sink(std::unique_ptr<MetricSink> sink) override { sinks_.push_back(std::move(sink)); }
  /// The metrics last read back.
  const Metrics& latest() const { return latest_; }

  /// Parameters, moments, EMA and step.
  void save(const std::string& path) override;
  void load(const std::string& path) override;

  /// Runs fn with the EMA weights in place of the trained ones (the trained ones when there is no EMA).
  void with_ema(const std::function<void()>& fn) { optimiser_->with_average(fn); }

 protected:
  /// Gives the parameters to the optimiser (their values are kept). Called once, by the constructor of the
  /// derived class.
  void adopt(const std::vector<Trainable>& parameters);
  /// The mean loss of one micro-batch, recorded on the current tape; named extra values ([] tensors) may be
  /// reported.
  virtual Tensor loss(int64_t step, int64_t micro, std::map<std::string, Tensor>& report) = 0;

  Device& device_;
  TrainOptions options_;

 private:
  void flush_metrics();

  std::unique_ptr<Optimiser> optimiser_;
  std::vector<std::pair<int64_t, std::map<std::string, Tensor>>> pending_;
  std::vector<std::unique_ptr<MetricSink>> sinks_;
  Metrics latest_;
};

}  // namespace vkflux
