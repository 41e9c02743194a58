// The one optimisation step of all trainers, over flat arenas of one layout.
//
//   const Tensor norm = gradients({&optimiser}, 1, [&](int64_t) { return Seeded{loss(), {}}; });
//   optimiser.apply(adam, gradient_scale(norm, clip));
#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <string>
#include <vector>

#include "autograd/optim.h"
#include "model/module.h"

namespace vkflux {

/// A parameter that is trained: its checkpoint name and where its module keeps the handle.
struct Trainable {
  std::string name;
  Tensor* tensor;
};
/// All parameters of a module.
std::vector<Trainable> trainables(const std::vector<Param>& params);

struct OptimiserLayout {
  bool averages = false;             // averaged parameters are kept, too
  bool decay_matrices_only = false;  // weight decay leaves vectors and scalars alone
  std::vector<size_t> groups;        // of each parameter, ascending; empty: all in group 0
};

/// Parameters with their gradients, AdamW moments and averages. A group of parameters has its own learning
/// rate and its own count of steps.
class Optimiser {
 public:
  /// Moves the parameters into an arena: their values are kept, and their modules' handles become views of
  /// it. The modules must stay where they are. Error internal when groups aren't in order.
  Optimiser(Device& device, std::vector<Trainable> parameters, const OptimiserLayout& layout = {});
  Optimiser(const Optimiser&) = delete;
  Optimiser& operator=(const Optimiser&) = delete;

  const std::string& name(size_t i) const { return parameters_[i].name; }
  const Arena& param() const { return param_; }
  const Arena& grad() const { return grad_; }
  const Arena& m() const { return m_; }
  const Arena& v() const { return v_; }
  const Arena* average() const { return average_.get(); }  // null: none

  /// One AdamW step of a group from its gradients. scale: from gradient_scale(); when it isn't finite the
  /// values stay as they are, and the step counts all the same until someone takes it back.
  void apply(const AdamWOptions& options, const Tensor& scale, size_t group = 0);
  void take_back(size_t group = 0) { --steps_[group]; }
  /// average = decay * average + (1 - decay) * parameters
  void update_average(float decay);
  /// Runs fn with the averages in place of the parameters (the parameters when there are no averages).
  void with_average(const std::function<void()>& fn) const;
  /// Forgets moments and steps.
  void restart();

  int64_t steps(size_t group = 0) const { return steps_[group]; }
  void set_steps(int64_t steps, size_t group = 0) { steps_[group] = steps; }

 private:
  std::vector<Trainable> parameters_;
  Arena param_, grad_, m_, v_;
  std::unique_ptr<Arena> average_;
  Tensor decay_mask_;            // of single groups only
  std::vector<int64_t> starts_;  // first element of each group in the arenas, and the end of the last
  std::vector<int64_t> steps_;
};

/// What a forward pass gives to backward: a value, and the gradient with respect to it (undefined: ones).
struct Seeded {
  Tensor value, seed;
};
/// Runs `forward` of every micro-batch under a tape on which all parameters are leaves, and leaves the sum of
/// their gradients in the optimisers. -> the norm [] of the first optimiser's gradients.
Tensor gradients(std::initializer_list<Optimiser*> optimisers, int64_t micro_batches,
                 const std::function<Seeded(int64_t micro)>& forward);

/// What gradients of this norm are multiplied with so that it is at most `clip` (0: any). NaN when the norm,
/// or the loss, isn't finite: such a step changes nothing. Stays on the device.
Tensor gradient_scale(const Tensor& norm, double clip, const Tensor& loss = {});

/// Checksum of the values they hold: what a run that starts from other weights must not be resumed with.
uint32_t checksum(const std::vector<Trainable>& parameters);

}  // namespace vkflux
