#include "app/cli/sample.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "app/cli/from_image.h"
#include "app/cli/memory.h"
#include "app/cli/model_flags.h"
#include "app/cli/numbers.h"
#include "app/sweep/seeds.h"
#include "app/weights.h"
#include "model/io/file.h"
#include "model/io/json.h"
#include "train/picture_grid.h"

namespace vkflux::cli {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr int kGridColumns = 8;

void check(const SampleArgs& args) {
  const bool many = !args.seeds.empty() || !args.sweeps.empty();
  if (many && !args.trace.empty())
    throw Error(ErrorCode::invalid_argument, "--trace is for one run: leave out --sweep and --seeds");
  if (many && args.batch != 1)
    throw Error(ErrorCode::invalid_argument, "--batch doesn't go with --sweep and --seeds: list the seeds");
  const SamplingArgs& s = args.sampling;
  if (many && !(s.save_latents + s.from_latents + s.from_noise).empty())
    throw Error(
        ErrorCode::invalid_argument,
        "--save-latents, --from-latents and --from-noise are for one run: leave out --sweep and --seeds");
  for (const std::string& sweep : args.sweeps) {
    if (!s.sigmas.empty() && sweep.starts_with("steps="))
      throw Error(ErrorCode::invalid_argument, "--sigmas says the number of steps: leave out --sweep steps");
  }
  if (!s.from_latents.empty() &&
      (args.compare || !args.trace.empty() || !args.pictures.init.empty() || !s.save_latents.empty()))
    throw Error(ErrorCode::invalid_argument,
                "--from-latents only decodes: leave out --compare, --trace, --init and --save-latents");
}

void write_pages(const SampleSession& session, const Common& common, const SampleArgs& args,
                 const std::vector<Drawn>& drawn, const std::vector<std::string>& files) {
  if (!args.grid.empty()) {
    std::vector<io::Image8> pictures;
    for (const Drawn& d : drawn) pictures.push_back(to_image8(d.image));
    io::write_png(args.grid,
                  picture_grid(pictures, std::min<int>(kGridColumns, static_cast<int>(pictures.size()))));
    if (!common.json) print_out("{}\n", args.grid);
  }
  if (!args.html.empty()) {
    std::vector<GalleryPicture> gallery;
    for (size_t i = 0; i < drawn.size(); ++i) gallery.push_back({drawn[i].prompt, drawn[i].seed, files[i]});
    io::atomic_write(args.html, gallery_html(gallery_info(session, drawn[0], args), gallery));
    if (!common.json) print_out("{}\n", args.html);
  }
}

void write_trace(SampleSession& session, const Common& common, const SampleArgs& args, const Shot& shot) {
  AttentionTrace trace(*session.device);
  const std::vector<Drawn> drawn = draw(session, shot, session.routing != nullptr, "tracing", &trace);
  io::atomic_write(args.trace, io::json_text(trace_json(trace, drawn[0].run, *session.pipeline), 1) + "\n");
  if (!common.json) print_out("{}\n", args.trace);
}

void print_comparison(const Json& c) {
  print_out(
      "{}  PSNR {}  SSIM {:.4f}  cosine {:.5f}  RMSE {:.5f}  latent cosine {:.6f}  latent RMSE {:.5f}  "
      "{:.1f} ms a step, full {:.1f} ms\n",
      c["files"]["side_by_side"].get<std::string>(),
      c["psnr"].is_null() ? "equal" : fmt::format("{:.2f} dB", c["psnr"].get<double>()),
      c["ssim"].get<double>(), c["cosine"].get<double>(), c["rmse"].get<double>(),
      c["latent_cosine"].get<double>(), c["latent_rmse"].get<double>(), c["routed_step_ms"].get<double>(),
      c["full_step_ms"].get<double>());
}

int run_batch(SampleSession& session, const Common& common, const SampleArgs& args) {
  Shot shot;
  shot.request = base_request(args);
  shot.request.prompts = args.texts;
  shot.request.time_steps = args.compare;
  read_files(args.sampling, *session.pipeline, shot.request);
  shot.model = args.model;
  shot.unfinished = unfinished_file(args);
  const bool routed = session.routing != nullptr;
  if (routed) {
    shot.quality_speed = session.routing->default_quality_speed();
    shot.temperature = session.routing->args().temperature;
  }
  std::vector<Drawn> full;
  if (args.compare) full = draw(session, shot, false, "full attention");
  shot.save_latents = args.sampling.save_latents;
  const std::vector<Drawn> drawn = draw(session, shot, routed, routed ? "routed" : "sampling");
  shot.save_latents.clear();
  if (!args.sampling.save_latents.empty() && !common.json) print_out("{}\n", args.sampling.save_latents);
  const GenerateResult& r = drawn[0].run;
  if (routed) {
    for (const StepReport& report : r.reports)
      print_note("{}\n", step_summary(report, r.steps, session.layers()));
  }
  Json list = Json::array();
  std::vector<std::string> files;
  for (size_t i = 0; i < drawn.size(); ++i) {
    const std::string path = picture_path(args, i, drawn.size(), drawn[i].prompt);
    files.push_back(save_picture(path, drawn[i], args));
    if (!common.json) print_out("{}\n", path);
    Json item{{"file", path}, {"settings", settings_json(drawn[i], args)}};
    if (args.compare) {
      item["compare"] = save_comparison(path, drawn[i], full[i], args, session.layers());
      io::atomic_write(comparison_files(path).figures, io::json_text(item, 1) + "\n");
      if (!common.json) print_comparison(item["compare"]);
    }
    list.push_back(std::move(item));
  }
  write_pages(session, common, args, drawn, files);
  if (!args.trace.empty()) write_trace(session, common, args, shot);
  if (!common.json) return kOk;
  Json j{{"device", session.device->caps().device_name},
         {"images", list},
         {"encode_s", r.timings.encode_s},
         {"denoise_s", r.timings.denoise_s},
         {"decode_s", r.timings.decode_s}};
  if (const MemoryPlan& plan = session.pipeline->memory_plan(); !plan.phases.empty()) {
    j["memory"] = plan_json(plan, session.pipeline->parts());
    j["memory"]["measured_peak_bytes"] = session.device->pool().usage().peak;
  }
  j["steps"] = Json::array();
  for (const StepReport& report : r.reports) j["steps"].push_back(step_json(report));
  print_out("{}\n", io::json_text(j, 1));
  return kOk;
}

void check_files(const SampleArgs& args) {
  FileUse files;
  declare_inputs(args, files);
  if (args.seeds.empty() && args.sweeps.empty()) {
    const std::vector<std::string>& prompts = args.texts;
    const size_t n = prompts.size() == 1 ? static_cast<size_t>(args.batch) : prompts.size();
    if (prompts.size() > 1 && args.batch != 1) {
      throw Error(
          ErrorCode::invalid_argument,
          fmt::format("--batch {} is for one prompt, and {} are given: --seeds 1,2,3 say draws each of them "
                      "several times",
                      args.batch, prompts.size()));
    }
    for (size_t i = 0; i < n; ++i) {
      const std::string path = picture_path(args, i, n, prompts[prompts.size() == 1 ? 0 : i]);
      files.writes("--out", path);
      if (!args.compare) continue;
      const ComparisonFiles beside = comparison_files(path);
      for (const std::string& name : {beside.full, beside.difference, beside.sheet, beside.figures})
        files.writes("--compare", name);
    }
    files.writes("--grid", args.grid);
    files.writes("--save-latents", args.sampling.save_latents);
  } else {
    declare_sweep(args, files);
  }
  files.writes("--html", args.html);
  files.writes("--trace", args.trace);
  files.writes("--profile-trace", args.profile.trace);
  files.check();
}

int run(const Common& common, SampleArgs args) {
  check(args);
  const bool told = !args.prompts.empty() || !args.prompts_file.empty();
  args.texts = told || args.sampling.from_latents.empty() ? all_prompts(args.prompts, args.prompts_file)
                                                          : prompts_of_latents(args.sampling.from_latents);
  for (const std::string& text : args.negative) check_text("--negative", text);
  args.loras.take_tags(args.texts);
  check_files(args);
  args.loras.hash();
  SampleSession session(common, args);
  return args.seeds.empty() && args.sweeps.empty() ? run_batch(session, common, args)
                                                   : run_sweep(session, common, args);
}

void add_picture_options(CLI::App& c, SampleArgs& o) {
  c.add_option("--prompt", o.prompts, "text; repeat it for several pictures");
  c.add_option("--prompts", o.prompts_file,
               "a .json file with an array of texts, or a file with one prompt a line (# starts a comment)");
  c.add_option(
       "--negative", o.negative,
       "what true guidance (--cfg) steers away from; empty by default. Repeat it for one for each --prompt")
      ->allow_extra_args(false);
  c.add_option("--seed", o.seed, "of the first picture; the next ones count up")
      ->capture_default_str()
      ->transform(any_seed());
  c.add_option("--batch", o.batch, "pictures of one prompt")
      ->capture_default_str()
      ->transform(whole(1, 4096));
  c.add_option("--steps", o.steps, "denoising steps; default: the model's")
      ->transform(whole(1, kMostSamplingSteps));
  c.add_option("--guidance", o.guidance, "distilled guidance (dev models); default: the model's")
      ->transform(real(0, kMostGuidance));
  c.add_option("--cfg", o.cfg, "true guidance, 1 = off; default: the model's")
      ->transform(real(0, kMostGuidance));
  c.add_option("--size", o.size, "WIDTHxHEIGHT in pixels; default: the model's")->check(picture_size());
  c.add_option("--noise", o.noise,
               "generator of the starting noise: counter, mersenne (PyTorch's CPU) or philox")
      ->capture_default_str();
  add_picture_inputs(c, o.pictures);
}

void add_sweep_options(CLI::App& c, SampleArgs& o) {
  c.add_option("--seeds", o.seeds,
               "seeds for every prompt: 1,2,3 or random:BASE:COUNT; writes a contact sheet and a table")
      ->excludes(c.get_option("--seed"))
      ->check(parsed_by([](const std::string& text) { parse_seeds(text); }, "SEEDS"));
  CLI::Option* sweep =
      c.add_option("--sweep", o.sweeps,
                   "NAME=V1,V2,... of seed, steps, cfg, guidance, quality-speed, size, strength or "
                   "policy-temperature; repeat it. A single number N without a comma means 1 to N")
          ->check(parsed_by([](const std::string& text) { parse_sweep(text); }, "NAME=VALUES"));
  c.add_option("--sweep-mode", o.sweep_mode,
               "of several sweeps: combinations (each list repeats itself up to the product of the lengths, "
               "which meets every combination only when the lengths have no common factor), product (every "
               "combination once) or clock (each list is spread over the pictures)")
      ->capture_default_str()
      ->check(CLI::IsMember({"combinations", "product", "clock"}))
      ->needs(sweep);
}

}  // namespace

GalleryInfo gallery_info(const SampleSession& session, const Drawn& d, const SampleArgs& args) {
  const JobProgress& t = d.run.timings;
  const Caps& caps = session.device->caps();
  return {caps.device_name,
          caps.driver_name + " " + caps.driver_info,
          io::last_name(args.model),
          d.run.steps,
          d.run.cfg,
          d.run.guidance,
          d.run.width,
          d.run.height,
          t.encode_s,
          t.denoise_s,
          t.decode_s};
}

void add_sample(CLI::App& app) {
  auto common = std::make_shared<Common>();
  auto o = std::make_shared<SampleArgs>();
  auto self = std::make_shared<CLI::App*>(nullptr);
  CLI::App* c =
      add_command(app, "sample", "draw pictures from text with a model of any layout",
                  "vkflux sample --model models/emoji --prompt \"red apple\" --seed 1 --out apple.png\n  "
                  "vkflux sample --model models/emoji --prompt \"red apple\" --ttr ttr.safetensors \\\n    "
                  "--controller controller.safetensors --sweep quality-speed=0,0.5,1 --compare --out apples",
                  common, [common, o, self] {
                    if (!o->from_image.empty()) apply_from_image(**self, o->from_image, o->prompts);
                    return run(*common, *o);
                  });
  *self = c;
  add_model_options(*c, o->model, o->parts);
  add_reading_options(*c, o->parts);
  add_picture_options(*c, *o);
  add_sampling_options(*c, o->sampling);
  add_routing_options(*c, o->routing);
  c->add_flag(
      "--compare", o->compare,
      "also draw with full attention from the same seed; writes both, the difference and the figures");
  c->add_option(
      "--trace", o->trace,
      "also write a JSON file with kind, time and FLOPs of every attention, from one more run that waits "
      "for the device before and after each (so its total time means nothing)");
  c->add_flag("--no-replay", o->no_replay,
              "record every step's commands anew instead of replaying those of the second pass: the same "
              "picture, for comparing the two (VKFLUX_REPLAY=0 does it for every command)");
  add_profile_options(*c, o->profile);
  add_sweep_options(*c, *o);
  add_weights_option(*c, o->weights);
  add_lora_option(*c, o->loras);
  add_lora_folder_option(*c, o->loras);
  add_memory_options(*c, o->memory);
  add_circular_options(*c, o->pictures);
  add_preview_options(*c, o->preview);
  c->add_option(
      "--from-image", o->from_image,
      "draw with the settings that this picture carries (of vkflux, A1111 or ComfyUI); flags that are given "
      "win, and what isn't taken over is said");
  c->add_option("--out", o->out, "a .png, .jpg or .webp file (numbered when there are several), or a folder")
      ->capture_default_str();
  c->add_option("--quality", o->quality, "of .jpg and .webp, which is lossless at 100")
      ->capture_default_str()
      ->transform(whole(1, 100));
  c->add_option("--grid", o->grid, "also write one PNG (NAME.png) with all pictures in rows of eight")
      ->check(parsed_by(
          [](const std::string& name) {
            const std::string ending = std::filesystem::path(name).extension().string();
            if (!ending.empty() && ending != ".png" && ending != ".PNG")
              throw Error(ErrorCode::invalid_argument,
                          fmt::format("\"{}\": the grid is written as PNG, not as {}", name, ending));
          },
          "NAME.png"));
  c->add_option("--html", o->html, "also write one self-contained page with all pictures");
}

}  // namespace vkflux::cli
