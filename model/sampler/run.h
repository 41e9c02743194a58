// One denoising run of a backbone: the steps of a sampler over given noise levels, with distilled guidance
// and true classifier-free guidance. Everybody who samples does it through this object.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "model/backbone.h"
#include "model/sampler/replay.h"
#include "model/sampler/solver.h"

namespace vkflux {

/// Inpainting: what stays of a picture, put back after every step at the noise level of that step. Packed
/// tokens, all of one shape.
struct KeptParts {
  Tensor clean, noise;
  Tensor repaint;  // 1 where the model paints, 0 where `clean` stays
};

struct SamplingOptions {
  std::vector<double> levels;     // as a rule falling, from 1 to 0
  std::vector<double> times;      // what the backbone is told in their place; empty: the levels
  int64_t start = 0;              // first step (image to image: the state is at levels[start])
  float guidance = 3.5f;          // for backbones that take it
  float cfg = 1;                  // true guidance; 1: one forward pass per step
  int64_t rows = 0, columns = 0;  // grid of image tokens
  int64_t width = 0, height = 0;  // of the image in pixels, for attention strategies
  /// [B, tokens, axes] positions; empty: those of a plain image.
  std::vector<float> ids;
  SolverOptions solver;
  /// Fresh noise for a step, packed as the latent is; needed by samplers that take some.
  Solver::Noise noise;
  /// Goes on in the middle of a run, at `start`, with what its sampler kept.
  std::optional<Solver::State> resumed;
  Condition pictures;                     // what pictures tell the backbone, beside both texts
  std::vector<ReferenceGrid> references;  // of the reference tokens in `pictures`
  std::optional<KeptParts> kept;
  bool wrap_rows = false, wrap_columns = false;  // the picture tiles: see TokenLayout
  std::vector<AttentionTap*> taps;               // watch the run's attention; not owned
  /// Record the passes' commands once and replay them (replay.h): the same bits with less work on the host.
  /// VKFLUX_REPLAY=0 in the environment switches it off, too.
  bool replay = true;
};

class SamplingRun {
 public:
  /// x[B, rows * columns (+ more), channels] at levels[start]. negative is needed when cfg isn't 1. The run
  /// uses the strategies that the backbone's bank has now.
  SamplingRun(Backbone& model, const Condition& positive, const std::optional<Condition>& negative, Tensor x,
              SamplingOptions options);

  bool finished() const { return step_ + 1 >= static_cast<int64_t>(options_.levels.size()); }
  int64_t step_index() const { return step_; }
  int64_t steps() const { return static_cast<int64_t>(options_.levels.size()) - 1; }
  /// Noise level of the coming step.
  double level() const { return options_.levels[static_cast<size_t>(step_)]; }
  /// One step of the sampler with the attention that the plan asks for (empty: full); recorded, not waited
  /// for unless the answers of other kinds must be checked.
  void step(const RoutePlan& plan = {});
  /// Who served the last step, why, and at what cost.
  const AttentionRun& attention() const { return attention_; }
  /// Device memory that recorded passes keep; 0: none are recorded.
  uint64_t recorded_bytes() const { return replay_ ? replay_->recorded_bytes() : 0; }
  const Tensor& x() const { return x_; }
  /// The mean of |x| after the last step, on the device: a number that is finite only where x is.
  const Tensor& magnitude() const { return sums_.back(); }
  /// Predicts once more for x before a step, with full attention, and names the first value on the way that
  /// isn't finite; empty: all are.
  std::string first_not_finite(const Tensor& x, int64_t step);
  const Solver::State& solver_state() const { return solver_.state(); }
  const Tensor& output() const { return output_; }  // the (guided) prediction of the last step
  /// Waits, and throws verification_failed naming the first step after which x held a value that isn't
  /// finite. Warns when values had to be cut to the range of f16 since the last call for this device.
  void check_finite() const;

 private:
  PassInputs inputs(const Condition& condition) const;
  StepInfo info(int64_t step) const;
  void make_step_table();
  Tensor predict(PassInputs& in, const Tensor& x, int64_t step);
  void feed(PassInputs& in, const Tensor& x, int64_t step);
  Tensor guided(const Tensor& x, int64_t step);
  Tensor with_kept(const Tensor& x, double level) const;

  Backbone& model_;
  Tensor x_, output_;
  SamplingOptions options_;
  Solver solver_;
  AttentionRun attention_;
  PassInputs positive_, negative_;
  struct Numbers {
    AttentionKind kind;
    int64_t count;
  };
  std::vector<Numbers>
      numbers_;        // what kinds of attention read of a step, in the order of the table's columns
  Tensor step_table_;  // [steps + 1, row]: those numbers, then the noise level for each picture
  std::unique_ptr<Replay> replay_;
  int64_t step_;
  std::vector<Tensor> sums_;  // of |x| after each step
};

}  // namespace vkflux
