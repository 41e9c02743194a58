// One update of a student: forward on a replay sample, the two-term loss, backward, clipping, AdamW.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "model/attention/hkr/hkr.h"
#include "train/optimise.h"

namespace vkflux {

/// What a student should have answered: a subset of the queries, all keys and values.
struct TeacherSample {
  HkrCall call;    // f32 q [B, H, n, D], k and v [B, H, N, D]
  Tensor teacher;  // f32 [B, H, n, D]
};

struct StudentOptimizer {
  double learning_rate = 1e-4, phi_lr_multiplier = 1, alpha_lr_multiplier = 5;
  double grad_clip_norm = 1;  // over all parameters of a layer; 0: off
  double huber_beta = 0.05;
  AdamWOptions adam;  // its lr isn't used
};

/// The log-variances that weigh the two loss terms, common to all layers.
class LossWeights {
 public:
  explicit LossWeights(Device& device, float huber = 0, float cosine = -1);
  const Tensor& huber() const { return huber_; }    // []
  const Tensor& cosine() const { return cosine_; }  // []
  Optimiser& optimiser() { return optimiser_; }
  const Optimiser& optimiser() const { return optimiser_; }

 private:
  Tensor huber_, cosine_;
  Optimiser optimiser_;
};

struct UpdateResult {
  double loss = 0, huber = 0, cosine = 0, mse = 0, nmse = 0, grad_norm = 0;  // before the update
  double alpha = 0, log_var_huber = 0, log_var_cosine = 0;                   // after it
  Tensor out;                                                                // the student's answer
  bool applied = true;  // false: something wasn't finite, and nothing was changed
};

/// An update under way, whose numbers come to the host when somebody asks.
struct PendingUpdate {
  Download numbers;
  Tensor out;
  bool conditioned = false;  // the conditioner took part
};

/// Owns the optimiser state of one student. The student's parameters live in its arena from now on.
class StudentTrainer {
 public:
  StudentTrainer(Device& device, HkrLayer& layer, const StudentOptimizer& options);

  /// Records an update and waits for nothing: on the device a loss or gradient that isn't finite leaves
  /// everything as it was. Steps are counted at once; finish() takes back those of an update that was left
  /// out, so updates recorded in between have their moments corrected for one step too many.
  PendingUpdate begin(const TeacherSample& sample, LossWeights& weights);
  UpdateResult finish(const PendingUpdate& pending, LossWeights& weights);
  UpdateResult update(const TeacherSample& sample, LossWeights& weights) {
    return finish(begin(sample, weights), weights);
  }

  /// Parameters in the order of HkrLayer::visit().
  Optimiser& optimiser() { return optimiser_; }
  /// Alpha, the feature networks, the conditioner (which stands still without a sigma).
  static constexpr size_t kGroups = 3;
  std::array<int64_t, kGroups> steps() const;
  void set_steps(const std::array<int64_t, kGroups>& steps);
  StudentOptimizer& options() { return options_; }

 private:
  struct Terms {
    Tensor loss, huber, cosine, out;
  };
  Terms forward(const TeacherSample& sample, const LossWeights& weights) const;
  /// Calls fn(group) for those that take part.
  template <class F>
  void each_group(bool conditioned, const F& fn);

  HkrLayer& layer_;
  StudentOptimizer options_;
  Optimiser optimiser_;
};

}  // namespace vkflux
