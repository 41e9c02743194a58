// The denoising loop of a FLUX.1 transformer as steps: Euler over given noise levels, with distilled guidance
// and true classifier-free guidance.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "model/flux/replay.h"

namespace vkflux {

/// What the text encoders say about the prompts: txt[B, T, context], y[B, vec].
struct FluxCondition {
  Tensor txt, y;
};

struct DenoiseOptions {
  std::vector<double> levels;     // falling, from 1 to 0
  int64_t start = 0;              // first step (image to image: the state is at levels[start])
  float guidance = 3.5f;          // for models with a guidance embedder
  float cfg = 1;                  // true guidance; 1: one forward pass per step
  int64_t rows = 0, columns = 0;  // grid of image tokens
  int64_t width = 0, height = 0;  // of the image in pixels, for attention strategies
  /// [B, T + I, 3] positions; empty: those of a plain image.
  std::vector<float> ids;
  /// The attention of every step of `levels`, all known before the first; empty: the bank's plan as it is.
  std::vector<RoutePlan> plans;
  /// Record the passes' commands once and replay them (model/flux/replay.h): the same bits with less work on
  /// the host. VKFLUX_REPLAY=0 in the environment switches it off, too.
  bool replay = true;
};

class FluxDenoiser {
 public:
  /// x[B, rows * columns (+ more), out_channels] at levels[start]. negative is needed when cfg isn't 1.
  FluxDenoiser(Flux1& model, FluxCondition positive, std::optional<FluxCondition> negative, Tensor x,
               DenoiseOptions options);

  bool finished() const { return step_ + 1 >= static_cast<int64_t>(options_.levels.size()); }
  int64_t step_index() const { return step_; }
  int64_t steps() const { return static_cast<int64_t>(options_.levels.size()) - 1; }
  /// One Euler step; recorded, not waited for.
  void step();
  /// Device memory that recorded passes keep; 0: none are recorded.
  uint64_t recorded_bytes() const { return replay_ ? replay_->recorded_bytes() : 0; }
  const Tensor& x() const { return x_; }
  const Tensor& velocity() const { return velocity_; }  // of the last step
  /// Waits, and throws verification_failed naming the first step after which x held a value that isn't
  /// finite.
  void check_finite() const;

 private:
  void make_step_table();
  Tensor predict(const FluxCondition& condition, double level);

  Flux1& model_;
  FluxCondition positive_;
  std::optional<FluxCondition> negative_;
  Tensor x_, velocity_, rope_, guidance_;
  Tensor step_table_;  // [steps, row]: hkr_scalars() of every step, then its noise level for each picture
  std::unique_ptr<Flux1Replay> replay_;
  DenoiseOptions options_;
  int64_t step_;
  std::vector<Tensor> sums_;  // of |x| after each step
};

}  // namespace vkflux
