// vkflux distill: students of a transformer's attention, trained while it samples.
#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <optional>

#include "app/cli/cli.h"
#include "app/cli/data.h"
#include "app/cli/distill_options.h"
#include "app/cli/memory.h"
#include "app/cli/model_flags.h"
#include "app/distill_report.h"
#include "app/outputs.h"
#include "app/sweep/prompt_list.h"
#include "app/weights.h"
#include "model/attention/hkr/made_for.h"
#include "model/io/file.h"
#include "model/io/json.h"
#include "model/pipeline.h"
#include "train/distill/distill_run.h"
#include "train/distill/held_out.h"

namespace vkflux::cli {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kHeldOutSeeds = 1ull << 40;  // far from every seed that a run trains on

SamplingPlan sampling_plan(const DistillArgs& o) {
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

/// What the students take on the device.
struct TrainingMemory {
  MemoryCall call;        // the largest
  uint64_t students = 0;  // parameters, gradients and moments of all of them
  uint64_t bytes() const { return students + static_cast<uint64_t>(estimate_memory(call)); }
};

TrainingMemory training_memory(const DistillArgs& o, const ModelInfo& model, int64_t image_tokens) {
  DistillSettings s = o.distill.settings;
  s.sanitise();
  const AttentionLayer attention = replaceable_shape(model.layout);
  int64_t layers = 0;
  for (size_t i = 0; i < model.layout.replaceable().size(); ++i)
    layers += s.selects_layer(static_cast<int64_t>(i));
  const int64_t text_tokens = model.defaults.txt_tokens, tokens = image_tokens + text_tokens;
  TrainingMemory out;
  MemoryCall& call = out.call;
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
  constexpr int64_t kArenas = 4;  // parameters, gradients, two moments
  out.students = static_cast<uint64_t>(layers * kArenas * count(parameters(layer))) * sizeof(float);
  return out;
}

/// The most that a picture of the plan takes.
GenerateRequest largest_request(const SamplingPlan& plan) {
  GenerateRequest r;
  r.prompts = {""};
  for (const auto& [width, height] : plan.sizes) {
    if (width * height > r.width * r.height) r.width = width, r.height = height;
  }
  r.steps = plan.steps;
  r.cfg = plan.cfg;
  r.replay = false;  // taps get eager passes
  return r;
}

int64_t image_tokens(const ModelInfo& model, const GenerateRequest& request) {
  const SamplingSetup setup = sampling_setup(model, request);
  return setup.options.rows * setup.options.columns;
}

/// Fills in what follows from the model, and says what the run will need before any of it is allocated.
void prepare(DistillArgs& o, const ModelInfo& model, const RunSequence& runs, Device& device) {
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
  const TrainingMemory memory = training_memory(o, model, runs.most_tokens());
  const MemoryCall& call = memory.call;
  constexpr double kMega = 1 << 20;
  spdlog::info(
      "memory: students and their optimisers {:.0f} MB on the device, a training call at {} tokens up to "
      "{:.0f} MB, replay up to {} MB on the host",
      static_cast<double>(memory.students) / kMega, call.keys,
      static_cast<double>(estimate_memory(call)) / kMega,
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
std::optional<int> distil(const DistillArgs& o, const RunFolder& folder, Distiller& distiller,
                          RunSequence& runs) {
  DistillRun::Options options;
  options.save_replay = o.save_replay;
  if (o.reset_criteria) options.criteria = o.distill.settings.readiness;
  DistillRun run(distiller, runs, options);
  describe_model(run.inputs(), o.model, o.parts);
  run.inputs().set("weights", o.weights);
  o.loras.describe(run.inputs());
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
std::vector<std::string> held_out_prompts(const DistillArgs& o, const Pipeline& pipeline,
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

Evaluation evaluate(const DistillArgs& o, Pipeline& pipeline, const Distiller& distiller,
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

io::Json summary_of(const DistillArgs& o, const Distiller& distiller, const Evaluation& e) {
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
  return {{"model", io::last_name(o.model)},
          {"conclusion", conclusion},
          {"updates", distiller.updates_done()},
          {"ready", distiller.students().ready()},
          {"threshold", distiller.options().settings.readiness.threshold},
          {"layers", std::move(layers)},
          {"settings", std::move(settings)}};
}

void print_summary(const Common& common, const DistillArgs& o, const io::Json& summary) {
  if (common.json) {
    print_out("{}\n", io::json_text(summary, 1));
    return;
  }
  const auto text = [](const io::Json& v) {
    return v.is_number_float() ? fmt::format("{:.4f}", v.get<double>())
           : v.is_string()     ? v.get<std::string>()
           : v.is_null()       ? std::string("-")
                               : io::json_text(v);
  };
  for (const io::Json& row : summary["layers"]) {
    for (const auto& [key, value] : row.items()) print_out("{} {}  ", key == "layer" ? "" : key, text(value));
    print_out("\n");
  }
  print_out("{}\n{}\n", summary["conclusion"].get<std::string>(),
            (fs::path(o.out) / "ttr.safetensors").string());
}

void check_files(const DistillArgs& o) {
  FileUse files;
  declare_model(files, o.model, o.parts);
  files.reads("--prompts", o.prompts_file);
  files.reads("--holdout", o.holdout);
  files.reads("--init", o.init);
  o.loras.declare(files);
  std::vector<std::string> names = RunFolder::own_files();
  names.insert(names.end(), {"log.txt", "ttr.safetensors", "summary.json", "report.html"});
  files.runs_in("--out", o.out, names, {"events"});
  files.writes("--profile-trace", o.profile.trace);
  files.check();
}

int run(const Common& common, DistillArgs o) {
  check(o);
  check_files(o);
  const RunFolder folder{o.out};
  const RunLock lock(folder);
  const auto device = open_device(common, vram_of(o.memory));
  const ProfileSession profile(*device, o.profile);
  if (o.memory_budget_mb > 0) device->pool().set_budget(static_cast<uint64_t>(o.memory_budget_mb) << 20);
  ModelOptions options = model_options(o.weights, o.parts);
  options.loras = o.loras.uses;
  const auto pipeline = Pipeline::load(*device, o.model, options);
  const SamplingPlan plan = sampling_plan(o);
  say_cuts("prompts", plan.prompts, pipeline->cuts(plan.prompts));
  const std::vector<std::string> held_out = held_out_prompts(o, *pipeline, plan);
  const GenerateRequest largest = largest_request(plan);
  hold_to_plan(*pipeline, largest,
               training_memory(o, pipeline->info(), image_tokens(pipeline->info(), largest)).bytes());
  RunSequence runs(*pipeline, plan);
  for (const auto& [width, height] : plan.sizes) {
    SamplingRequest request;
    request.width = width;
    request.height = height;
    for (const std::string& note : sampling_setup(pipeline->info(), request).notes) spdlog::warn("{}", note);
  }
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
  io::atomic_write((out / "summary.json").string(), io::json_text(summary, 1) + "\n");
  const std::string metrics = folder.metrics();
  const std::string lines = io::is_there(metrics) ? io::read_file(metrics) : std::string();
  io::atomic_write((out / "report.html").string(), distill_report_html(summary, lines));
  print_summary(common, o, summary);
  return kOk;
}

}  // namespace

void add_distill(CLI::App& app) {
  auto common = std::make_shared<Common>();
  auto o = std::make_shared<DistillArgs>();
  CLI::App* c = add_command(
      app, "distill", "train linear-time students of a transformer's attention layers while sampling with it",
      "vkflux distill --model models/emoji --prompts prompts.txt --landmark-min 2 --out runs/ttr", common,
      [common, o] { return run(*common, *o); });
  add_distill_options(c, *o);
}

}  // namespace vkflux::cli
