// A picture in the making: encode, denoise step by step, decode. Pipeline::generate() makes one.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "model/conditioning.h"
#include "model/family.h"
#include "model/routing/router.h"
#include "model/sampler/noise.h"
#include "vk/stream.h"

namespace vkflux {

struct GenerateRequest : SamplingRequest, PictureRequest {
  std::vector<std::string> prompts;   // one picture each
  std::vector<std::string> negative;  // the other side of cfg: none, one for all, or one for each prompt
  int64_t batch = 1;                  // pictures of a prompt, when there is one prompt
  uint64_t seed = 0;                  // of the first picture; the next has seed + 1
  NoiseMode noise = NoiseMode::counter;
  /// Decides which layers use their students (see Pipeline::install_students), step by step; the decisions
  /// about all steps that run are made before the first of them. Null: full attention.
  std::shared_ptr<Router> router;
  std::optional<uint64_t> route_seed;  // of the router's draws; default: `seed`
  /// Textures: the picture's left and right (x), upper and lower (y) borders fit each other.
  bool circular_x = false, circular_y = false;
  /// Decodes in place of the model's own autoencoder, which isn't loaded for that.
  std::shared_ptr<const LatentCodec> decoder;
  /// Gets what the model takes the clean latents [B, channels, h, w] to be, after every `preview_every` steps
  /// but the last.
  std::function<void(int64_t step, const Tensor& clean)> preview;
  int64_t preview_every = 1;
  /// Wait for the device after every step, so that StepReport::ms is that step's time and nothing else's.
  bool time_steps = false;
  /// [B, channels, h, w], one for each picture: begins with these values in place of the seeds'.
  Tensor start_noise;
  /// The same, without noise: nothing but decodes them.
  Tensor latents;
  bool replay = true;           // see SamplingOptions
  AttentionTap* tap = nullptr;  // watches the run's attention; not owned
};

/// A layer that the plan gave to its student and that used full attention.
struct RefusedLayer {
  int layer = 0;
  std::string reason;
};

/// What one denoising step did.
struct StepReport {
  int64_t index = 0;
  double sigma = 0;
  double ms = 0;  // on the device, from the end of the step before to the end of this one
  double flops = 0, attention_flops = 0, full_attention_flops = 0;  // counted; the last: had all been full
  // Only of routed runs; layers are those that may be replaced, counted from 0.
  bool routed = false;
  double threshold = 0;
  std::vector<int> planned, student;  // given to the student, and served by it
  std::vector<RefusedLayer> refused;
};

enum class JobPhase { encode, denoise, decode, done };
const char* name(JobPhase phase);

struct JobProgress {
  JobPhase phase = JobPhase::encode;
  int64_t step = 0, steps = 0;  // of denoising
  double encode_s = 0, denoise_s = 0, decode_s = 0;
};

struct GenerateResult {
  std::vector<RgbImage> images;
  Tensor latents;  // [B, channels, h, w], as the transformer sees them
  Tensor noise;    // what the run began with, the same shape
  std::vector<double> levels;
  std::string sampler;
  int64_t width = 0, height = 0, steps = 0;
  float guidance = 0, cfg = 1;  // used; guidance 0: the model has none
  double strength = 1;          // used; of requests with an init picture
  uint64_t seed = 0;
  std::vector<std::string> notes;   // what the request asked for and the model can't do, and what was mended
  std::vector<StepReport> reports;  // of the steps done so far; ms of the last one follows with the next step
  JobProgress timings;
};

/// One thread calls step(); cancel() may come from any.
class GenerateJob {
 public:
  /// The model must outlive the job. Error invalid_argument for requests that can't be.
  GenerateJob(Device& device, Model& model, GenerateRequest request);
  /// Encodes the prompts, or does one denoising step, or decodes; false when all is done. Error cancelled
  /// after cancel().
  bool step();
  /// All steps.
  const GenerateResult& run();
  void cancel() { cancelled_ = true; }
  /// The latents as they are now, [B, channels, h, w]; undefined before the first step.
  Tensor latents() const;
  /// Called after every step.
  void on_progress(std::function<void(const JobProgress&)> fn) { callback_ = std::move(fn); }
  const JobProgress& progress() const { return progress_; }
  /// Complete when progress().phase is done.
  const GenerateResult& result() const { return result_; }
  /// Of a routed job that has begun: (step, layer) pairs that the plan gives to students.
  int64_t planned() const;

 private:
  /// A step whose result isn't known to be finite yet, and what it began with.
  struct Unchecked {
    int64_t step;
    Tensor x;
    Solver::State state;
    Download magnitude;
  };
  void begin();  // encode phase
  Condition encode(const std::vector<std::string>& prompts);
  void begin_run(const Tensor& x);
  bool settle();
  void recover(const Unchecked& bad);
  void check_latents(const char* what, const Tensor& x) const;
  void plan_routes();
  void report_step(double flops_before);
  Tensor with_pictures(const Tensor& noise);
  void show_preview() const;
  void end_of_step();
  void denoise();  // one step
  void decode();
  void check_cancelled() const;

  Device& device_;
  Model& model_;
  GenerateRequest request_;
  SamplingSetup setup_;
  int64_t images_ = 1;
  std::shared_ptr<Backbone> backbone_;
  std::unique_ptr<SamplingRun> run_;
  Condition positive_;
  std::optional<Condition> negative_;
  int64_t first_step_ = 0;
  std::deque<Unchecked> unchecked_;
  std::vector<RouteDecision> decisions_;  // of every step that runs; empty: not routed
  std::vector<RoutePlan> plans_;          // what they mean
  uint64_t submitted_ = 0;
  std::shared_ptr<const BatchTime> first_, begin_;  // the first work of denoising; as step_end_ms_ knows it
  std::deque<std::shared_ptr<const BatchTime>> ends_;  // the last work of the steps whose ms isn't known
  size_t timed_ = 0;                                   // reports whose ms is known
  double step_end_ms_ = 0;                             // of the last of them
  std::atomic<bool> cancelled_{false};
  std::function<void(const JobProgress&)> callback_;
  JobProgress progress_;
  GenerateResult result_;
};

}  // namespace vkflux
