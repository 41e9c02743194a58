#include "app/cli/distill_options.h"

#include <fmt/format.h>

#include <algorithm>

#include "app/cli/model_flags.h"
#include "app/cli/numbers.h"
#include "app/weights.h"
#include "vk/error.h"

namespace vkflux::cli {
namespace {

constexpr double kLearningRate = 1e-3;

void add_sampling_options(CLI::App* c, DistillArgs& o) {
  add_model_options(*c, o.model, o.parts);
  c->add_option("--out", o.out, "run folder: checkpoint, metrics, report and the exported students")
      ->required();
  c->add_option("--prompt", o.prompts, "text to sample with; repeat it for several");
  c->add_option("--prompts", o.prompts_file, "a file with one prompt a line, or a JSON list");
  c->add_option("--negative", o.negative, "the other side of --cfg; empty by default");
  c->add_option("--size", o.sizes, "WIDTHxHEIGHT in pixels; several are mixed; default: the model's")
      ->check(picture_size());
  c->add_option("--sampling-steps", o.sampling_steps, "denoising steps of a picture; default: the model's")
      ->transform(whole(1, kMostSamplingSteps));
  c->add_option("--cfg,--cfg-scale", o.cfg, "true guidance, 1 = off; default: the model's")
      ->transform(real(0, kMostGuidance));
  c->add_option("--guidance", o.guidance, "distilled guidance (dev models); default: the model's")
      ->transform(real(0, kMostGuidance));
  c->add_option("--seed", o.seed, "every random choice follows from it")
      ->capture_default_str()
      ->transform(any_seed());
  add_weights_option(*c, o.weights);
  add_lora_option(*c, o.loras);
  CLI::Option* vram = add_vram_option(*c, o.memory);
  c->add_option("--memory-budget", o.memory_budget_mb, "MB of device memory at most; 0 = all there is")
      ->transform(whole(0, kMostMegabytes))
      ->excludes(vram);
}

void add_student_options(CLI::App* c, DistillArgs& o) {
  DistillSettings& s = o.distill.settings;
  c->add_option("--feature-dim", s.feature_dim, "features of the kernel branch, a multiple of 32")
      ->capture_default_str()
      ->transform(whole(32, 8192));
  c->add_option("--hidden", o.distill.feature_hidden,
                "width of the feature networks; 0 = max(head_dim, 2 feature_dim)")
      ->capture_default_str()
      ->transform(whole(0, kMostWidth));
  c->add_option("--layers", o.distill.feature_layers, "layers of the feature networks, 2 or 3")
      ->capture_default_str()
      ->transform(whole(2, 3));
  c->add_option("--query-chunk-size", s.sizes.query_chunk, "queries at a time")
      ->capture_default_str()
      ->transform(whole(1, kMostTokens));
  c->add_option("--key-chunk-size", s.sizes.key_chunk, "keys at a time")
      ->capture_default_str()
      ->transform(whole(1, kMostTokens));
  c->add_option("--landmark-fraction", s.landmark_fraction, "of the image tokens that are landmarks")
      ->capture_default_str()
      ->transform(real(0, 1));
  c->add_option("--landmark-min", s.sizes.landmark_min, "fewest landmarks among the image tokens")
      ->capture_default_str()
      ->transform(whole(1, kMostTokens));
  c->add_option("--landmark-max", s.sizes.landmark_max, "most landmarks among the image tokens, 0 = no limit")
      ->capture_default_str()
      ->transform(whole(0, kMostTokens));
  c->add_option("--text-tokens-guess", s.text_tokens_guess,
                "for hosts that don't state the text tokens (vkflux does)")
      ->capture_default_str()
      ->transform(whole(0, kMostTokens));
  c->add_option("--alpha-init", s.alpha_init, "initial weight of the landmark branch, of --alpha-max")
      ->capture_default_str()
      ->transform(real(0, 1));
  c->add_option("--alpha-max", s.alpha_max, "largest weight of the landmark branch")
      ->capture_default_str()
      ->transform(real(0, 1));
  c->add_option("--gamma", s.gamma, "how much the branches' disagreement moves that weight")
      ->capture_default_str()
      ->transform(real(0, 1000));
  c->add_option("--layer-start", s.layer_start,
                "first layer that gets a student (layers that may be replaced count from 0), -1 = all")
      ->capture_default_str()
      ->transform(whole(-1, kMostLayers));
  c->add_option("--layer-end", s.layer_end, "last layer that gets a student, -1 = all")
      ->capture_default_str()
      ->transform(whole(-1, kMostLayers));
  c->add_option("--init", o.init, "start from these students (ours, or the reference's tensor names)");
}

void add_training_options(CLI::App* c, DistillArgs& o) {
  DistillSettings& s = o.distill.settings;
  c->add_option("--updates", o.updates, "updates of all layers together; default: enough for readiness")
      ->transform(whole(0, kMostSteps));
  c->add_option("--schedule", o.schedule,
                "layers of a step: round-robin (those with the fewest updates) or random")
      ->capture_default_str()
      ->check(CLI::IsMember({"random", "round-robin"}));
  c->add_option("--min-swap-layers", s.min_swap_layers, "fewest layers trained per step")
      ->capture_default_str()
      ->transform(whole(0, kMostLayers));
  c->add_option("--max-swap-layers", s.max_swap_layers, "most layers trained per step, -1 = all")
      ->capture_default_str()
      ->transform(whole(-1, kMostLayers));
  c->add_option("--train-steps-per-call", s.train_steps_per_call, "updates per attention call")
      ->capture_default_str()
      ->transform(whole(1, 1000));
  c->add_option("--learning-rate", s.learning_rate,
                "learning rate of AdamW (1e-4 takes about ten times as many updates)")
      ->capture_default_str()
      ->transform(real(1e-12, 10));
  c->add_option("--alpha-lr-multiplier", s.alpha_lr_multiplier,
                "factor on the learning rate of alpha, the landmark branch's weight")
      ->capture_default_str()
      ->transform(real(0, 1e6));
  c->add_option("--phi-lr-multiplier", s.phi_lr_multiplier,
                "factor on the learning rate of the feature networks and the conditioner")
      ->capture_default_str()
      ->transform(real(0, 1e6));
  c->add_option("--grad-clip-norm", s.grad_clip_norm, "largest gradient norm of a layer, 0 = off")
      ->capture_default_str()
      ->transform(real(0, 1e9));
  c->add_option("--huber-beta", s.huber_beta, "where the Huber loss turns linear")
      ->capture_default_str()
      ->transform(real(1e-6, 1e6));
  c->add_option("--training-query-token-cap", s.sizes.query_cap, "most queries of a replay sample")
      ->capture_default_str()
      ->transform(whole(1, kMostTokens));
  c->add_option("--replay-buffer-size", s.replay_buffer_size, "samples kept per layer")
      ->capture_default_str()
      ->transform(whole(1, 1000000));
  c->add_option("--replay-max-mb", o.replay_max_mb, "host memory for samples of all layers, 0 = unlimited")
      ->capture_default_str()
      ->transform(whole(0, kMostMegabytes));
  c->add_option("--replay-storage-dtype", s.replay_storage_dtype,
                "number format in which replay samples are stored")
      ->capture_default_str()
      ->check(CLI::IsMember({"float16", "bfloat16", "float32"}));
  c->add_option("--readiness-threshold", s.readiness.threshold,
                "largest cosine distance to full attention of a layer whose student may serve")
      ->capture_default_str()
      ->transform(real(0, 2));
  c->add_option("--readiness-min-updates", s.readiness.min_updates,
                "fewest updates of a layer whose student may serve")
      ->capture_default_str()
      ->transform(whole(0, 1000000));
  c->add_flag("--reset-criteria", o.reset_criteria,
              "use --readiness-threshold and --readiness-min-updates in place of a checkpoint's");
  c->add_flag("--preview,!--no-preview", s.preview, "ready layers already answer while training (default)");
  c->add_flag("--enable-memory-reserve", s.enable_memory_reserve, "take the estimated memory at the start");
}

void add_run_options(CLI::App* c, DistillArgs& o) {
  c->add_option("--save-every", o.save_every, "updates between checkpoints")
      ->capture_default_str()
      ->transform(whole(1, kMostSteps));
  c->add_flag("--save-replay,!--no-save-replay", o.save_replay,
              "checkpoints hold the replay samples (default); without them resuming isn't exact");
  c->add_option("--stop-after", o.stop_after, "stop after so many updates, as if interrupted")
      ->transform(whole(0, kMostSteps));
  c->add_flag("--fresh", o.fresh, "start over: what an earlier run wrote to the folder is removed first");
  c->add_flag(
      "--accept-changed-inputs", o.accept_changed,
      "go on from the checkpoint although model, prompts, files or settings aren't those that it was\n"
      "made with");
  c->add_option("--log-every", o.distill.settings.log_every, "updates between rows of metrics")
      ->capture_default_str()
      ->transform(whole(1, kMostSteps));
  c->add_flag("--quiet", o.quiet, "snapshots go to log.txt only");
  c->add_option("--holdout", o.holdout, "prompts that aren't distilled on, for an evaluation at the end");
  c->add_option("--holdout-runs", o.holdout_runs, "pictures of that evaluation")
      ->capture_default_str()
      ->transform(whole(1, kMostPictures));
  c->add_option("--export-dtype", o.export_dtype, "number format of the matrices in ttr.safetensors")
      ->capture_default_str()
      ->check(CLI::IsMember({"f32", "f16", "bf16"}));
}

}  // namespace

void add_distill_options(CLI::App* command, DistillArgs& args) {
  args.command = command;
  args.distill.settings.learning_rate = kLearningRate;
  add_sampling_options(command, args);
  add_student_options(command, args);
  add_training_options(command, args);
  add_run_options(command, args);
  add_profile_options(*command, args.profile);
}

void check(const DistillArgs& o) {
  const auto refuse = [](const std::string& what) { throw Error(ErrorCode::invalid_argument, what); };
  const DistillSettings& s = o.distill.settings;
  if (s.max_swap_layers >= 0 && s.max_swap_layers < std::max<int64_t>(1, s.min_swap_layers))
    refuse(fmt::format("--min-swap-layers {} --max-swap-layers {}: no layer would be trained",
                       s.min_swap_layers, s.max_swap_layers));
  if (s.layer_end >= 0 && s.layer_start > s.layer_end)
    refuse(fmt::format("--layer-start {} --layer-end {}: no layer lies between", s.layer_start, s.layer_end));
  HkrConfig shape;
  shape.feature_dim = s.feature_dim;
  shape.hidden = o.distill.feature_hidden;
  shape.layers = o.distill.feature_layers;
  const ErrorContext context("--feature-dim, --hidden and --layers");
  shape.check();
}

}  // namespace vkflux::cli
