// The pictures that are sampled while students are distilled: an endless sequence of runs, each a function of
// its number, that can be left and taken up again between any two denoising steps.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "model/io/json.h"
#include "model/io/safetensors.h"
#include "model/pipeline.h"

namespace vkflux {

/// Run r draws prompt r (cycling) from the noise of seed + r, in a size chosen by (seed, r).
struct SamplingPlan {
  std::vector<std::string> prompts;
  std::string negative;                            // the other side of cfg
  std::vector<std::pair<int64_t, int64_t>> sizes;  // width, height in pixels; empty: the model's
  int64_t steps = 0;                               // 0: the model's
  std::optional<float> guidance, cfg;
  uint64_t seed = 0;
};

class RunSequence {
 public:
  /// Error invalid_argument for a plan that can't be.
  RunSequence(Pipeline& pipeline, SamplingPlan plan);

  /// Watches the attention of runs that begin from now on; not owned.
  void set_tap(AttentionTap* tap) { tap_ = tap; }
  /// Noise level of the coming step.
  double level() const;
  /// One denoising step under a plan; begins the next run when the last one is over.
  void step(const RoutePlan& plan = {});
  /// Steps made in all runs together: what swap sets are numbered by.
  int64_t steps_done() const { return steps_done_; }
  int64_t run() const { return run_; }
  const SamplingPlan& plan() const { return plan_; }
  Backbone& backbone() { return *backbone_; }
  /// Image tokens of the largest size.
  int64_t most_tokens() const;

  /// The place in the sequence, and the latent when a run is under way (tensor "sampler.x").
  io::Json save(std::vector<io::TensorData>& tensors) const;
  /// Goes on there. When the plan was another one the run under way is given up, with a warning. Error format
  /// changes nothing.
  void load(const io::SafetensorsFile& file, const io::Json& state);

 private:
  io::Json describe() const;
  void begin(int64_t run, int64_t step, const Tensor& x, std::optional<Solver::State> resumed = {});
  SamplingRequest request(int64_t width, int64_t height) const;
  SamplingSetup setup(int64_t run) const;
  Tensor noise(int64_t run) const;
  Condition condition(size_t index);

  Pipeline& pipeline_;
  SamplingPlan plan_;
  std::shared_ptr<Backbone> backbone_;
  AttentionTap* tap_ = nullptr;
  std::unique_ptr<SamplingRun> sampling_;
  std::map<size_t, Condition> blocks_;  // of consecutive prompts, encoded together
  std::optional<Condition> negative_;
  int64_t run_ = 0, steps_done_ = 0;
};

}  // namespace vkflux
