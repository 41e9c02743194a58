// One update of a student: forward on a replay sample, the two-term loss, backward, clipping, AdamW.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "autograd/optim.h"
#include "model/attention/hkr/hkr.h"
#include "model/io/safetensors.h"

namespace vkflux {

/// What a student should have answered: a subset of the queries, all keys and values.
struct TeacherSample {
  Tensor q, teacher;  // f32 [B, H, n, D]
  Tensor k, v;        // f32 [B, H, N, D]
  Tensor key_mask;    // u8 [B, N] or undefined
  std::optional<int64_t> conditioning, text;
  std::optional<float> sigma, cfg;
};

struct StudentOptimizer {
  double learning_rate = 1e-4, phi_lr_multiplier = 1, alpha_lr_multiplier = 5;
  double grad_clip_norm = 1;  // over all parameters of a layer; 0: off
  double huber_beta = 0.05;
  AdamWOptions adam;  // its lr isn't used
};

/// Arenas of one AdamW: parameters, gradients and both moments in one layout.
struct AdamWState {
  AdamWState(Device& device, const std::vector<std::pair<std::string, Shape>>& layout);
  Arena param, grad, m, v;
};

/// The log-variances that weigh the two loss terms, common to all layers, with their own AdamW.
class LossWeights {
 public:
  explicit LossWeights(Device& device, float huber = 0, float cosine = -1);
  const Tensor& huber() const { return state_.param[0]; }   // []
  const Tensor& cosine() const { return state_.param[1]; }  // []
  AdamWState& state() { return state_; }
  const AdamWState& state() const { return state_; }
  int64_t steps() const { return steps_; }
  void set_steps(int64_t steps) { steps_ = steps; }
  /// One step with the gradients in state().grad; scale: adamw's.
  void step(const AdamWOptions& options, const Tensor& scale);

 private:
  AdamWState state_;
  int64_t steps_ = 0;
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

  /// Parameter names in the order of the arenas: HkrLayer::visit().
  const std::vector<std::string>& names() const { return names_; }
  AdamWState& state() { return state_; }
  /// Steps of each group: alpha, the feature networks, the conditioner (which stands still without a sigma).
  static constexpr size_t kGroups = 3;
  const std::array<int64_t, kGroups>& steps() const { return steps_; }
  void set_steps(const std::array<int64_t, kGroups>& steps) { steps_ = steps; }
  StudentOptimizer& options() { return options_; }

 private:
  struct Terms {
    Tensor loss, huber, cosine, out;
  };
  Terms forward(const TeacherSample& sample, const LossWeights& weights) const;
  void apply(const Tensor& scale, bool conditioned);
  Tensor group(const Arena& arena, size_t g) const;

  HkrLayer& layer_;
  StudentOptimizer options_;
  std::vector<std::string> names_;
  AdamWState state_;
  std::array<int64_t, kGroups + 1> starts_{};  // first element of each group in the arena, and its end
  std::array<int64_t, kGroups> steps_{};
};

}  // namespace vkflux
