// Prompt to picture with a FLUX.1 checkpoint folder in diffusers layout:
//
//   auto pipeline = Pipeline::load(device, "models/emoji");
//   auto job = pipeline->generate({.prompts = {"red apple"}});
//   while (job->step()) show(job->progress());
//   write(job->result().images[0]);
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "model/flux/transformer.h"
#include "model/hkr/router.h"
#include "model/hkr/students.h"
#include "model/io/names.h"
#include "model/sampler/denoise.h"
#include "model/sampler/noise.h"
#include "model/sampler/schedule.h"
#include "model/text/clip.h"
#include "model/text/t5.h"
#include "model/text/tokenizer.h"
#include "model/vae/autoencoder.h"

namespace vkflux {

struct PipelineOptions {
  /// Of the matrices of the transformer and the text encoders; packed types with the exceptions of
  /// model/weight_storage.h.
  DType weights = DType::f32;
  std::function<void(const std::string&)> remark;  // gets sentences on what was loaded otherwise than wanted
  /// Keep every part on the device between its uses; default: when all files together have at most 2 GiB.
  std::optional<bool> keep_parts;
};

/// What model_index.json recommends under "vkflux" ({"steps": 8, "cfg": 2, "guidance": 3.5, "size": 64 or
/// [width, height], "txt_tokens": 8}); where it is silent, the published models' values.
struct PipelineDefaults {
  int64_t steps = 28, width = 1024, height = 1024;
  float guidance = 3.5f, cfg = 1;
  int64_t txt_tokens = 512;
};

/// 8-bit R, G, B in rows from the top.
struct RgbImage {
  int64_t width = 0, height = 0;
  std::vector<uint8_t> rgb;
};

struct GenerateRequest {
  std::vector<std::string> prompts;  // one picture each
  std::string negative;              // the other side of cfg
  int64_t batch = 1;                 // pictures of a prompt, when there is one prompt
  int64_t width = 0, height = 0;     // 0: the default; rounded down to whole tokens
  int64_t steps = 0;                 // 0: the default
  std::optional<float> guidance, cfg;
  uint64_t seed = 0;  // of the first picture; the next has seed + 1
  NoiseMode noise = NoiseMode::counter;
  std::vector<double> levels;    // noise levels by hand, instead of steps and the model's schedule
  std::optional<RgbImage> init;  // image to image: resized to the target size
  double strength = 0.6;         // of image to image
  /// Decides which single blocks use their students (see install_students), step by step; all decisions are
  /// made before the first step. Null: full attention. Nothing is barred any more when a routed run begins.
  std::shared_ptr<Router> router;
  std::optional<uint64_t> route_seed;  // of the router's draws; default: `seed`
  /// Wait for the device after every step, so that StepReport::ms is that step's time and nothing else's.
  bool time_steps = false;
  bool replay = true;           // see DenoiseOptions
  AttentionTap* tap = nullptr;  // watches the run's attention; not owned
};

/// A single block that the plan gave to its student and that used full attention.
struct RefusedBlock {
  int block = 0;
  std::string reason;
};

/// What one denoising step did.
struct StepReport {
  int64_t index = 0;
  double sigma = 0;
  double ms = 0;  // from the end of the step before to the end of this one
  double flops = 0, attention_flops = 0, full_attention_flops = 0;  // counted; the last: had all been full
  // Only of routed runs; blocks are single blocks counted from 0.
  bool routed = false;
  double threshold = 0;
  std::vector<int> planned, student;  // given to the student, and served by it
  std::vector<RefusedBlock> refused;
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
  Tensor latents;  // [B, z, h, w], as the transformer sees them
  int64_t width = 0, height = 0, steps = 0;
  float guidance = 0, cfg = 1;  // used; guidance 0: the model has none
  uint64_t seed = 0;
  std::vector<std::string> notes;   // what the request asked for and the model can't do
  std::vector<StepReport> reports;  // of the steps done so far; ms of the last one follows with the next step
  JobProgress timings;
};

class Pipeline;

/// A picture in the making. One thread calls step(); cancel() may come from any.
class GenerateJob {
 public:
  ~GenerateJob();
  /// Encodes the prompts, or does one denoising step, or decodes; false when all is done. Error cancelled
  /// after cancel().
  bool step();
  /// All steps.
  const GenerateResult& run();
  void cancel() { cancelled_ = true; }
  /// Called after every step.
  void on_progress(std::function<void(const JobProgress&)> fn) { callback_ = std::move(fn); }
  const JobProgress& progress() const { return progress_; }
  /// Complete when progress().phase is done.
  const GenerateResult& result() const { return result_; }

 private:
  friend class Pipeline;
  GenerateJob(Pipeline& pipeline, GenerateRequest request);
  void begin();  // encode phase
  std::vector<RoutePlan> plan_routes();
  void denoise_routed();
  void report_step(double flops_before);
  void end_of_step();
  void denoise();  // one step
  void decode();
  void check_cancelled() const;

  Pipeline& pipeline_;
  GenerateRequest request_;
  std::vector<double> levels_;
  int64_t images_ = 1;
  std::unique_ptr<FluxDenoiser> denoiser_;
  std::shared_ptr<Flux1> transformer_;
  std::vector<RouteDecision> decisions_;  // of every step; empty: not routed
  uint64_t submitted_ = 0;
  size_t timed_ = 0;     // reports whose ms is known
  double step_end_ = 0;  // when the last timed step ended, in seconds
  std::atomic<bool> cancelled_{false};
  std::function<void(const JobProgress&)> callback_;
  JobProgress progress_;
  GenerateResult result_;
};

class Pipeline {
 public:
  /// Reads configs, tokenizers and every file's header; the weights follow when they are first needed.
  /// Missing or contradicting parts are error format.
  static std::unique_ptr<Pipeline> load(Device& device, const std::string& dir,
                                        const PipelineOptions& options = {});

  Device& device() const { return device_; }
  const Flux1Config& transformer_config() const { return flux_; }
  const AutoencoderConfig& autoencoder_config() const { return vae_; }
  const PipelineDefaults& defaults() const { return defaults_; }
  const Schedule& schedule() const { return schedule_; }
  /// Pixels per token side: width and height are multiples of it.
  int64_t pixels_per_token() const { return 2 * vae_.factor(); }

  /// Reads the students of this transformer's single blocks from a file of `vkflux distill`; they serve
  /// routed runs from now on, in place of earlier ones. Errors as in load_students().
  void install_students(const std::string& path);
  /// Null before install_students().
  const Students* students() const { return students_.get(); }

  /// Error invalid_argument for requests that can't be.
  std::unique_ptr<GenerateJob> generate(GenerateRequest request);

  /// The parts, loaded now unless they are here.
  std::shared_ptr<Flux1> transformer();
  std::shared_ptr<AutoencoderKL> autoencoder();
  /// Loads the text encoders, runs them, lets them go unless parts are kept. -> [prompts, ...]
  FluxCondition encode(const std::vector<std::string>& prompts);

 private:
  Pipeline(Device& device, std::string dir, const PipelineOptions& options);
  void read_index();
  void read_tokenizers();
  void read_configs();
  void check_parts() const;
  void load_weights(const std::vector<Param>& params, const io::NamedTensors& file, const StorageRules& rules);
  std::shared_ptr<ClipText> clip();
  std::shared_ptr<T5Encoder> t5();

  Device& device_;
  std::string dir_;
  PipelineOptions options_;
  bool keep_ = true;
  PipelineDefaults defaults_;
  bool has_txt_tokens_ = false;
  Schedule schedule_;
  Flux1Config flux_;
  AutoencoderConfig vae_;
  ClipTextConfig clip_config_;
  T5Config t5_config_;
  std::unique_ptr<Tokenizer> clip_tokenizer_, t5_tokenizer_;
  std::unique_ptr<Students> students_;
  std::shared_ptr<Flux1> transformer_;
  std::shared_ptr<AutoencoderKL> autoencoder_;
  std::shared_ptr<ClipText> clip_;
  std::shared_ptr<T5Encoder> t5_;
};

}  // namespace vkflux
