// vkflux distill: students of a transformer's attention, trained while it samples.
#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <optional>

#include "app/cli/cli.h"
#include "app/cli/data.h"
#include "app/cli/profile.h"
#include "app/distill_report.h"
#include "app/sweep/prompt_list.h"
#include "app/weights.h"
#include "model/attention/hkr/made_for.h"
#include "model/io/file.h"
#include "model/pipeline.h"
#include "train/distill/distill_run.h"
#include "train/distill/held_out.h"

namespace vkflux::cli {
namespace {

namespace fs = std::filesystem;

constexpr double kLearningRate = 1e-3;
constexpr uint64_t kHeldOutSeeds = 1ull << 40;  // far from every seed that a run trains on

struct Options {
  std::string model, prompts_file, negative, out, init, holdout, weights = "f32", export_dtype = "f16",
                                                                 schedule = "round-robin";
  std::vector<std::string> prompts, sizes;
  ProfileArgs profile;
  int64_t updates = -1, sampling_steps = 0, replay_max_mb = 768, save_every = 200, stop_after = 0,
          holdout_runs = 8, memory_budget_mb = 0;
  float cfg = -1, guidance = -1;
  uint64_t seed = 0;
  bool fresh = false, accept_changed = false, save_replay = true, reset_criteria = false, quiet = false;
  DistillOptions distill;
  const CLI::App* command = nullptr;
};

SamplingPlan sampling_plan(const Options& o) {
  SamplingPlan plan;
  plan.prompts = all_prompts(o.prompts, o.prompts_file);
  for (const std::string& size : o.sizes) plan.sizes.push_back(parse_size(size));
  check_text("--negative", o.negative);
  plan.negative = o.negative;
  plan.steps = o.sampling_steps;
  if (o.cfg >= 0) plan.cfg = o.cfg;
  if (o.guidance >= 0) plan.guidance = o.guidance;
  plan.seed = o.seed;
  return plan;
}

/// Fills in what follows from the model, and says what the run will need before any of it is allocated.
void prepare(Options& o, const ModelInfo& model, const RunSequence& runs, Device& device) {
  DistillSettings& s = o.distill.settings;
  s.replay_max_bytes = static_cast<uint64_t>(std::max<int64_t>(0, o.replay_max_mb)) << 20;
  s.cfg_scale = *runs.plan().cfg;
  o.distill.seed = o.seed;
  o.distill.schedule = o.schedule == "random" ? LayerSchedule::random : LayerSchedule::round_robin;
  s.sanitise();
  const AttentionLayer attention = replaceable_shape(model.layout);
  int64_t layers = 0;
  for (size_t i = 0; i < model.layout.replaceable().size(); ++i)
    layers += s.selects_layer(static_cast<int64_t>(i));
  const int64_t needed = updates_needed(layers, s.readiness.min_updates);
  s.steps = o.updates >= 0 ? o.updates : needed;
  spdlog::info("{} layers, {} updates each before readiness is judged: about {} updates in all; {}", layers,
               s.readiness.min_updates, needed,
               o.updates < 0 ? "that many are made" : fmt::format("--updates {} are made", s.steps));
  if (s.steps < layers * s.readiness.min_updates) {
    spdlog::warn("{} updates can't make {} layers ready: each needs {} (--readiness-min-updates)", s.steps,
                 layers, s.readiness.min_updates);
  }
  const int64_t text_tokens = model.defaults.txt_tokens, tokens = runs.most_tokens() + text_tokens;
  MemoryCall call;
  call.heads = attention.heads;
  call.queries = std::min(tokens, s.sizes.query_cap);
  call.keys = tokens;
  call.head_dim = attention.head_dim;
  call.feature_dim = s.feature_dim;
  call.query_chunk = s.sizes.query_chunk;
  call.key_chunk = s.sizes.key_chunk;
  call.landmark_max = s.sizes.landmark_max;
  call.conditioning_tokens = text_tokens;
  call.training = true;
  HkrConfig shape;
  shape.head_dim = attention.head_dim;
  shape.feature_dim = s.feature_dim;
  shape.hidden = o.distill.feature_hidden;
  shape.layers = o.distill.feature_layers;
  shape.check();
  HkrLayer layer(shape);
  constexpr double kMega = 1 << 20;
  constexpr int64_t kArenas = 4;  // parameters, gradients, two moments
  const double students =
      static_cast<double>(layers * kArenas * count(parameters(layer))) * sizeof(float) / kMega;
  spdlog::info(
      "memory: students and their optimisers {:.0f} MB on the device, a training call at {} tokens up to "
      "{:.0f} MB, replay up to {} MB on the host",
      students, tokens, static_cast<double>(estimate_memory(call)) / kMega,
      s.replay_max_bytes ? std::to_string(o.replay_max_mb) : "unlimited");
  const int64_t image = runs.most_tokens();
  if (landmark_budget(image, s.hkr_options().landmarks) >= image) {
    spdlog::warn(
        "every one of the {} image tokens is a landmark (--landmark-min {}): the students are hardly tested; "
        "lower --landmark-min",
        image, s.sizes.landmark_min);
  }
  if (s.enable_memory_reserve) {
    try {
      device.pool().allocate(memory_to_reserve(call), MemoryClass::scratch);  // given back, the block stays
    } catch (const Error& e) {
      spdlog::warn("memory was not reserved: {}", e.what());
    }
  }
}

/// Console and log file.
class Messages {
 public:
  Messages(std::string path, bool quiet) : path_(std::move(path)), quiet_(quiet) {}
  void operator()(const std::string& line) {
    // A clean start removes the file of an earlier run before the first line.
    if (!log_.is_open()) log_.open(path_, std::ios::app);
    log_ << line << std::endl;
    if (!quiet_) spdlog::info("{}", line);
  }

 private:
  std::string path_;
  std::ofstream log_;
  bool quiet_;
};

/// Trains to the end; nothing when it got there, else what the command returns.
std::optional<int> distil(const Options& o, const RunFolder& folder, Distiller& distiller,
                          RunSequence& runs) {
  DistillRun::Options options;
  options.save_replay = o.save_replay;
  if (o.reset_criteria) options.criteria = o.distill.settings.readiness;
  DistillRun run(distiller, runs, options);
  run.inputs().set_files("model", {o.model});
  run.inputs().set("weights", o.weights);
  if (!o.init.empty()) run.inputs().set_files("init", {o.init});
  if (o.accept_changed) run.inputs().accept_changes();
  std::optional<Progress> progress;
  const auto started = [&] {
    const int64_t done = distiller.updates_done();
    progress.emplace("distilling", done + distiller.totals().remaining, done);
  };
  const auto after_step = [&] {
    progress->update(distiller.updates_done(), fmt::format("ready {}/{}", distiller.students().ready().size(),
                                                           distiller.students().layers.size()));
  };
  const RunLoopOptions loop{folder,
                            o.fresh,
                            o.save_every,
                            o.stop_after,
                            "updates",
                            settings_of(*o.command),
                            {"log.txt", "ttr.safetensors", "summary.json", "report.html"}};
  if (!run_to_end(run, loop, interrupted, started, after_step)) return interrupted() ? kInterrupted : kOk;
  if (distiller.totals().remaining == 0) return {};
  spdlog::error("training gave up for lack of memory after {} updates", distiller.updates_done());
  return kLimit;
}

struct Evaluation {
  ByLayer<double> trained, held_out;
};

/// The prompts of the evaluation, read before the training that they judge.
std::vector<std::string> held_out_prompts(const Options& o, const Pipeline& pipeline,
                                          const SamplingPlan& plan) {
  if (o.holdout.empty()) return {};
  std::vector<std::string> prompts = all_prompts({}, o.holdout);
  say_cuts("held-out prompts", prompts, pipeline.cuts(prompts));
  for (const std::string& p : prompts) {
    if (std::find(plan.prompts.begin(), plan.prompts.end(), p) != plan.prompts.end()) {
      spdlog::warn("the held-out prompt \"{}\" is also distilled on", p);
    }
  }
  return prompts;
}

Evaluation evaluate(const Options& o, Pipeline& pipeline, const Distiller& distiller,
                    const SamplingPlan& plan, const std::vector<std::string>& prompts) {
  Evaluation e;
  if (prompts.empty()) return e;
  SamplingPlan held_out = plan;
  held_out.prompts = prompts;
  held_out.seed = plan.seed + kHeldOutSeeds;
  RunSequence seen(pipeline, plan), unseen(pipeline, held_out);
  e.trained = student_distances(seen, distiller.students(), o.holdout_runs);
  e.held_out = student_distances(unseen, distiller.students(), o.holdout_runs);
  return e;
}

io::Json number(const ByLayer<double>& values, const std::string& layer) {
  const auto it = values.find(layer);
  return it == values.end() || !std::isfinite(it->second) ? io::Json(nullptr) : io::Json(it->second);
}

io::Json summary_of(const Options& o, const Distiller& distiller, const Evaluation& e) {
  io::Json layers = io::Json::array();
  double ema = 0, held = 0, measured = 0;
  for (const auto& [name, student] : distiller.students().layers) {
    const Readiness& r = student->readiness;
    io::Json row{{"layer", layer_key(name)},
                 {"updates", r.updates},
                 {"ready", r.ready ? "yes" : "no"},
                 {"ema_cosine_dist", r.ema_cosine_dist ? io::Json(*r.ema_cosine_dist) : io::Json(nullptr)}};
    if (!e.held_out.empty()) {
      row["distilled_cosine_dist"] = number(e.trained, name);
      row["held_out_cosine_dist"] = number(e.held_out, name);
      held += e.held_out.at(name);
    }
    ema += r.ema_cosine_dist.value_or(0);
    measured += r.ema_cosine_dist.has_value();
    layers.push_back(std::move(row));
  }
  const auto n = static_cast<double>(distiller.students().layers.size());
  std::string conclusion =
      fmt::format("{} of {} layers ready after {} updates", distiller.students().ready().size(),
                  layers.size(), distiller.updates_done());
  if (measured > 0) {
    conclusion += fmt::format("; cosine distance to full attention {:.4f} while distilling", ema / measured);
    if (measured < n) conclusion += fmt::format(" ({} of {} layers)", measured, n);
  }
  if (!e.held_out.empty()) conclusion += fmt::format(", {:.4f} held out", held / n);
  io::Json settings = distiller.options().settings.to_json();
  settings["feature_hidden"] = distiller.students().config.width();
  settings["feature_layers"] = distiller.students().config.layers;
  settings["schedule"] = o.schedule;
  settings["seed"] = distiller.options().seed;
  return {{"model", fs::path(o.model).lexically_normal().filename().string()},
          {"conclusion", conclusion},
          {"updates", distiller.updates_done()},
          {"ready", distiller.students().ready()},
          {"threshold", distiller.options().settings.readiness.threshold},
          {"layers", std::move(layers)},
          {"settings", std::move(settings)}};
}

void print_summary(const Common& common, const Options& o, const io::Json& summary) {
  if (common.json) {
    print_out("{}\n", summary.dump(1));
    return;
  }
  const auto text = [](const io::Json& v) {
    return v.is_number_float() ? fmt::format("{:.4f}", v.get<double>())
           : v.is_string()     ? v.get<std::string>()
           : v.is_null()       ? std::string("-")
                               : v.dump();
  };
  for (const io::Json& row : summary["layers"]) {
    for (const auto& [key, value] : row.items()) print_out("{} {}  ", key == "layer" ? "" : key, text(value));
    print_out("\n");
  }
  print_out("{}\n{}\n", summary["conclusion"].get<std::string>(),
            (fs::path(o.out) / "ttr.safetensors").string());
}

int run(const Common& common, Options o) {
  const RunFolder folder{o.out};
  const RunLock lock(folder);
  const auto device = open_device(common);
  const ProfileSession profile(*device, o.profile);
  if (o.memory_budget_mb > 0) device->pool().set_budget(static_cast<uint64_t>(o.memory_budget_mb) << 20);
  const auto pipeline = Pipeline::load(*device, o.model, model_options(o.weights));
  const SamplingPlan plan = sampling_plan(o);
  say_cuts("prompts", plan.prompts, pipeline->cuts(plan.prompts));
  const std::vector<std::string> held_out = held_out_prompts(o, *pipeline, plan);
  RunSequence runs(*pipeline, plan);
  const BackboneLayout& layout = pipeline->info().layout;
  prepare(o, pipeline->info(), runs, *device);
  Distiller distiller(*device, layout, o.distill);
  if (!o.init.empty()) distiller.adopt(load_students(*device, o.init, layout));
  const fs::path out(o.out);
  Messages messages(folder.file("log.txt"), o.quiet);
  distiller.on_message([&](const std::string& line) { messages(line); });
  if (const std::optional<int> code = distil(o, folder, distiller, runs)) return *code;
  const Evaluation e = evaluate(o, *pipeline, distiller, plan, held_out);
  const io::Json summary = summary_of(o, distiller, e);
  Students students = distiller.described();
  if (!e.held_out.empty()) {
    for (const auto& [name, student] : students.layers) {
      students.fields["layer_held_out_cosine_dist"][layer_key(name)] = number(e.held_out, name);
    }
  }
  const io::FileDType dtype = o.export_dtype == "f32"    ? io::FileDType::f32
                              : o.export_dtype == "bf16" ? io::FileDType::bf16
                                                         : io::FileDType::f16;
  save_students((out / "ttr.safetensors").string(), students, dtype);
  io::atomic_write((out / "summary.json").string(), summary.dump(1) + "\n");
  const std::string metrics = folder.metrics();
  const std::string lines = fs::exists(metrics) ? io::read_file(metrics) : std::string();
  io::atomic_write((out / "report.html").string(), distill_report_html(summary, lines));
  print_summary(common, o, summary);
  return kOk;
}

void add_sampling_options(CLI::App* c, Options& o) {
  c->add_option("--model", o.model, "checkpoint folder with model_index.json")->required();
  c->add_option("--out", o.out, "run folder: checkpoint, metrics, report and the exported students")
      ->required();
  c->add_option("--prompt", o.prompts, "text to sample with; repeat it for several");
  c->add_option("--prompts", o.prompts_file, "a file with one prompt a line, or a JSON list");
  c->add_option("--negative", o.negative, "the other side of --cfg; empty by default");
  c->add_option("--size", o.sizes, "WIDTHxHEIGHT in pixels; several are mixed; default: the model's");
  c->add_option("--sampling-steps", o.sampling_steps, "denoising steps of a picture; default: the model's")
      ->check(CLI::PositiveNumber);
  c->add_option("--cfg,--cfg-scale", o.cfg, "true guidance, 1 = off; default: the model's")
      ->check(CLI::NonNegativeNumber);
  c->add_option("--guidance", o.guidance, "distilled guidance (dev models); default: the model's")
      ->check(CLI::NonNegativeNumber);
  c->add_option("--seed", o.seed, "every random choice follows from it")->capture_default_str();
  add_weights_option(*c, o.weights);
  c->add_option("--memory-budget", o.memory_budget_mb, "MB of device memory at most; 0 = all there is")
      ->check(CLI::NonNegativeNumber);
}

void add_student_options(CLI::App* c, Options& o) {
  DistillSettings& s = o.distill.settings;
  c->add_option("--feature-dim", s.feature_dim, "features of the kernel branch, a multiple of 32")
      ->capture_default_str();
  c->add_option("--hidden", o.distill.feature_hidden,
                "width of the feature networks; 0 = max(head_dim, 2 feature_dim)")
      ->capture_default_str();
  c->add_option("--layers", o.distill.feature_layers, "layers of the feature networks, 2 or 3")
      ->capture_default_str();
  c->add_option("--query-chunk-size", s.sizes.query_chunk, "queries at a time")->capture_default_str();
  c->add_option("--key-chunk-size", s.sizes.key_chunk, "keys at a time")->capture_default_str();
  c->add_option("--landmark-fraction", s.landmark_fraction, "of the image tokens that are landmarks")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 1.0));
  c->add_option("--landmark-min", s.sizes.landmark_min, "fewest landmarks among the image tokens")
      ->capture_default_str();
  c->add_option("--landmark-max", s.sizes.landmark_max, "most landmarks among the image tokens, 0 = no limit")
      ->capture_default_str();
  c->add_option("--text-tokens-guess", s.text_tokens_guess,
                "for hosts that don't state the text tokens (vkflux does)")
      ->capture_default_str();
  c->add_option("--alpha-init", s.alpha_init, "initial weight of the landmark branch, of --alpha-max")
      ->capture_default_str();
  c->add_option("--alpha-max", s.alpha_max, "largest weight of the landmark branch")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 1.0));
  c->add_option("--gamma", s.gamma, "how much the branches' disagreement moves that weight")
      ->capture_default_str();
  c->add_option("--layer-start", s.layer_start,
                "first layer that gets a student (layers that may be replaced count from 0), -1 = all")
      ->capture_default_str();
  c->add_option("--layer-end", s.layer_end, "last layer that gets a student, -1 = all")
      ->capture_default_str();
  c->add_option("--init", o.init, "start from these students (ours, or the reference's tensor names)");
}

void add_training_options(CLI::App* c, Options& o) {
  DistillSettings& s = o.distill.settings;
  c->add_option("--updates", o.updates, "updates of all layers together; default: enough for readiness")
      ->check(CLI::NonNegativeNumber);
  c->add_option("--schedule", o.schedule,
                "layers of a step: round-robin (those with the fewest updates) or random")
      ->capture_default_str()
      ->check(CLI::IsMember({"random", "round-robin"}));
  c->add_option("--min-swap-layers", s.min_swap_layers, "fewest layers trained per step")
      ->capture_default_str();
  c->add_option("--max-swap-layers", s.max_swap_layers, "most layers trained per step, -1 = all")
      ->capture_default_str();
  c->add_option("--train-steps-per-call", s.train_steps_per_call, "updates per attention call")
      ->capture_default_str();
  c->add_option("--learning-rate", s.learning_rate,
                "learning rate of AdamW (1e-4 takes about ten times as many updates)")
      ->capture_default_str();
  c->add_option("--alpha-lr-multiplier", s.alpha_lr_multiplier,
                "factor on the learning rate of alpha, the landmark branch's weight")
      ->capture_default_str();
  c->add_option("--phi-lr-multiplier", s.phi_lr_multiplier,
                "factor on the learning rate of the feature networks and the conditioner")
      ->capture_default_str();
  c->add_option("--grad-clip-norm", s.grad_clip_norm, "largest gradient norm of a layer, 0 = off")
      ->capture_default_str();
  c->add_option("--huber-beta", s.huber_beta, "where the Huber loss turns linear")->capture_default_str();
  c->add_option("--training-query-token-cap", s.sizes.query_cap, "most queries of a replay sample")
      ->capture_default_str();
  c->add_option("--replay-buffer-size", s.replay_buffer_size, "samples kept per layer")
      ->capture_default_str();
  c->add_option("--replay-max-mb", o.replay_max_mb, "host memory for samples of all layers, 0 = unlimited")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  c->add_option("--replay-storage-dtype", s.replay_storage_dtype,
                "number format in which replay samples are stored")
      ->capture_default_str()
      ->check(CLI::IsMember({"float16", "bfloat16", "float32"}));
  c->add_option("--readiness-threshold", s.readiness.threshold,
                "largest cosine distance to full attention of a layer whose student may serve")
      ->capture_default_str();
  c->add_option("--readiness-min-updates", s.readiness.min_updates,
                "fewest updates of a layer whose student may serve")
      ->capture_default_str();
  c->add_flag("--reset-criteria", o.reset_criteria,
              "use --readiness-threshold and --readiness-min-updates in place of a checkpoint's");
  c->add_flag("--preview,!--no-preview", s.preview, "ready layers already answer while training (default)");
  c->add_flag("--enable-memory-reserve", s.enable_memory_reserve, "take the estimated memory at the start");
}

void add_run_options(CLI::App* c, Options& o) {
  c->add_option("--save-every", o.save_every, "updates between checkpoints")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  c->add_flag("--save-replay,!--no-save-replay", o.save_replay,
              "checkpoints hold the replay samples (default); without them resuming isn't exact");
  c->add_option("--stop-after", o.stop_after, "stop after so many updates, as if interrupted");
  c->add_flag("--fresh", o.fresh, "start over: what an earlier run wrote to the folder is removed first");
  c->add_flag(
      "--accept-changed-inputs", o.accept_changed,
      "go on from the checkpoint although model, prompts, files or settings aren't those that it was\n"
      "made with");
  c->add_option("--log-every", o.distill.settings.log_every, "updates between rows of metrics")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  c->add_flag("--quiet", o.quiet, "snapshots go to log.txt only");
  c->add_option("--holdout", o.holdout, "prompts that aren't distilled on, for an evaluation at the end");
  c->add_option("--holdout-runs", o.holdout_runs, "pictures of that evaluation")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  c->add_option("--export-dtype", o.export_dtype, "number format of the matrices in ttr.safetensors")
      ->capture_default_str()
      ->check(CLI::IsMember({"f32", "f16", "bf16"}));
}

}  // namespace

void add_distill(CLI::App& app) {
  auto common = std::make_shared<Common>();
  auto o = std::make_shared<Options>();
  o->distill.settings.learning_rate = kLearningRate;
  CLI::App* c = add_command(
      app, "distill", "train linear-time students of a transformer's attention layers while sampling with it",
      "vkflux distill --model models/emoji --prompts prompts.txt --landmark-min 2 --out runs/ttr", common,
      [common, o] { return run(*common, *o); });
  o->command = c;
  add_sampling_options(c, *o);
  add_student_options(c, *o);
  add_training_options(c, *o);
  add_run_options(c, *o);
  add_profile_options(*c, o->profile);
}

}  // namespace vkflux::cli
