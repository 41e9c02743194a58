#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <set>

#include "app/cli/model_flags.h"
#include "app/cli/numbers.h"
#include "app/cli/sample.h"
#include "app/frontier.h"
#include "app/sweep/number_list.h"
#include "app/weights.h"
#include "model/io/file.h"
#include "model/io/json.h"
#include "model/io/png.h"

namespace vkflux::cli {
namespace {

namespace fs = std::filesystem;

constexpr size_t kBatch = 8, kShown = 4, kMaxPictures = 1024;

struct Options {
  SampleArgs sample;  // of its flags only those that are added below
  std::string out = "report.html", knob = "0,0.25,0.5,0.75,1", fewer;
  int64_t repeats = 3;
  size_t pictures = 8;
};

/// What is measured at one point.
struct Setting {
  std::string series;
  double knob = 0;
  int64_t steps = 0;
};

std::vector<double> knob_values(const std::string& text) {
  std::vector<double> out = number_list(text, "--knob");
  for (double k : out) {
    if (!(k >= 0 && k <= 1))
      throw Error(ErrorCode::invalid_argument, fmt::format("--knob {}: values from 0 to 1 are expected", k));
  }
  return out;
}

std::vector<int64_t> fewer_steps(const std::string& text) {
  std::vector<int64_t> out;
  for (double n : number_list(text, "--fewer-steps")) {
    if (!(n >= 1 && n <= static_cast<double>(kMostSamplingSteps)) || n != std::floor(n)) {
      throw Error(
          ErrorCode::invalid_argument,
          fmt::format("--fewer-steps {}: whole numbers from 1 to {} are expected", n, kMostSamplingSteps));
    }
    out.push_back(static_cast<int64_t>(n));
  }
  return out;
}

std::vector<Setting> settings(const Options& o, int64_t steps) {
  std::vector<Setting> out{{"full", 0, steps}};
  const bool controlled = !o.sample.routing.controller.empty();
  for (double k : knob_values(o.knob)) {
    // Without a controller there is nothing between all students and none.
    if (controlled || k == 0 || k == 1) out.push_back({"routed", k, steps});
  }
  std::vector<int64_t> fewer = fewer_steps(o.fewer);
  for (int64_t n : fewer) {
    if (n >= steps)
      throw Error(ErrorCode::invalid_argument,
                  fmt::format("--fewer-steps {}: fewer than the {} steps of the full picture are expected", n,
                              steps));
  }
  if (o.fewer.empty()) {
    for (double share : {0.875, 0.75, 0.625, 0.5, 0.375, 0.25})
      fewer.push_back(std::llround(share * static_cast<double>(steps)));
  }
  std::set<int64_t> seen;
  for (int64_t n : fewer) {
    if (n >= 1 && n < steps && seen.insert(n).second) out.push_back({"fewer steps", 0, n});
  }
  return out;
}

std::vector<Drawn> draw_all(SampleSession& session, const Options& o, const Setting& s,
                            const std::vector<std::string>& prompts, const std::string& what,
                            double* seconds) {
  std::vector<Drawn> all;
  *seconds = 0;
  for (size_t at = 0; at < prompts.size(); at += kBatch) {
    Shot shot;
    shot.request = base_request(o.sample);
    shot.request.prompts.assign(
        prompts.begin() + static_cast<ptrdiff_t>(at),
        prompts.begin() + static_cast<ptrdiff_t>(std::min(at + kBatch, prompts.size())));
    shot.request.seed += at;
    shot.request.steps = s.steps;
    shot.request.time_steps = true;
    shot.quality_speed = s.knob;
    shot.temperature = session.routing->args().temperature;
    for (Drawn& d : draw(session, shot, s.series == "routed", what)) {
      if (d.index == 0) *seconds += d.run.timings.denoise_s;
      all.push_back(std::move(d));
    }
  }
  *seconds /= static_cast<double>(prompts.size());
  return all;
}

void judge(FrontierPoint& p, const std::vector<Drawn>& drawn, const std::vector<Drawn>& full,
           int64_t blocks) {
  for (size_t i = 0; i < drawn.size(); ++i) {
    const Compared c = compare(drawn[i], full[i]);
    p.quality.add(c.picture, c.latent);
    if (i < kShown) p.pngs.push_back(io::encode_png(to_image8(drawn[i].image)));
    if (drawn[i].index != 0) continue;
    const RunSummary s = summarise(drawn[i].run.reports, blocks);
    p.flops += s.flops;
    p.attention_flops += s.attention_flops;
  }
  double share = 0;
  for (const Drawn& d : drawn) share += summarise(d.run.reports, blocks).student_share;
  const auto n = static_cast<double>(drawn.size());
  p.student_share = share / n;
  p.flops /= n;
  p.attention_flops /= n;
}

Frontier describe(const SampleSession& session, const Options& o, const Drawn& first, size_t pictures) {
  Frontier f;
  const Caps& caps = session.device->caps();
  f.device = caps.device_name;
  f.driver = caps.driver_name + " " + caps.driver_info;
  f.model = gallery_info(session, first, o.sample).model;
  f.ttr = fs::path(o.sample.routing.ttr).filename().string();
  f.controller = fs::path(o.sample.routing.controller).filename().string();
  f.policy = o.sample.routing.policy;
  f.width = first.run.width;
  f.height = first.run.height;
  f.steps = first.run.steps;
  f.cfg = first.run.cfg;
  f.guidance = first.run.guidance;
  f.pictures = static_cast<int64_t>(pictures);
  f.repeats = o.repeats;
  return f;
}

Frontier measure(SampleSession& session, const Options& o) {
  std::vector<std::string> prompts = o.sample.texts;
  if (prompts.size() > o.pictures) prompts.resize(o.pictures);
  const int64_t steps = o.sample.steps ? o.sample.steps : session.pipeline->info().defaults.steps;
  const std::vector<Setting> all = settings(o, steps);
  std::vector<FrontierPoint> points;
  std::vector<Drawn> full;
  double seconds = 0;
  // The first round judges the pictures and warms everything up; only the later ones are timed.
  for (const Setting& s : all) {
    FrontierPoint p;
    p.series = s.series;
    p.knob = s.knob;
    p.steps = s.steps;
    std::vector<Drawn> drawn =
        draw_all(session, o, s, prompts, fmt::format("{}: pictures", p.label()), &seconds);
    if (full.empty()) full = drawn;
    judge(p, drawn, full, session.layers());
    points.push_back(std::move(p));
  }
  for (int64_t r = 0; r < o.repeats; ++r) {
    for (size_t i = 0; i < all.size(); ++i) {
      draw_all(session, o, all[i], prompts,
               fmt::format("{}: timing {}/{}", points[i].label(), r + 1, o.repeats), &seconds);
      points[i].seconds.push_back(seconds);
    }
  }
  Frontier f = describe(session, o, full[0], prompts.size());
  for (size_t i = 0; i < std::min(kShown, prompts.size()); ++i) f.shown.push_back(prompts[i]);
  f.points = std::move(points);
  return f;
}

void print_table(const Frontier& f) {
  const FrontierPoint& full = f.points.front();
  print_out("{} on {}: {} pictures of {}x{}\n", f.model, f.device, f.pictures, f.width, f.height);
  print_out("{:<20}{:>7}{:>10}{:>12}{:>8}{:>8}{:>9}{:>8}{:>13}\n", "setting", "steps", "students",
            "s/picture", "time", "FLOPs", "PSNR", "SSIM", "latent RMSE");
  for (const FrontierPoint& p : f.points) {
    const double psnr = p.quality.psnr();
    print_out("{:<20}{:>7}{:>9.0f}%{:>12.4f}{:>7.0f}%{:>7.1f}%{:>9}{:>8.4f}{:>13.5f}\n", p.label(), p.steps,
              100 * p.student_share, p.median_seconds(), 100 * p.median_seconds() / full.median_seconds(),
              100 * p.flops / full.flops, std::isfinite(psnr) ? fmt::format("{:.2f}", psnr) : "equal",
              p.quality.ssim / static_cast<double>(p.quality.pictures), p.quality.latent_rmse());
  }
}

int run(const Common& common, Options o) {
  o.sample.texts = all_prompts(o.sample.prompts, o.sample.prompts_file);
  FileUse files;
  declare_inputs(o.sample, files);
  files.writes("--out", o.out);
  files.check();
  SampleSession session(common, o.sample);
  const Frontier f = measure(session, o);
  io::atomic_write(o.out, f.html());
  if (common.json) {
    print_out("{}\n", io::json_text(f.json(), 1));
  } else {
    print_table(f);
    print_out("{}\n", o.out);
  }
  return kOk;
}

}  // namespace

void add_report(CLI::App& app) {
  auto common = std::make_shared<Common>();
  auto o = std::make_shared<Options>();
  SampleArgs& s = o->sample;
  CLI::App* c = add_command(
      app, "report", "measure quality against time: routed sampling beside fewer steps of the full model",
      "vkflux report --model models/emoji --ttr models/emoji/ttr.safetensors \\\n    "
      "--controller models/emoji/controller.safetensors --prompts prompts.txt --out report.html",
      common, [common, o] { return run(*common, *o); });
  add_model_options(*c, s.model, s.parts);
  add_reading_options(*c, s.parts);
  c->add_option("--ttr", s.routing.ttr, "students of the attention layers (a file of `vkflux distill`)")
      ->required();
  c->add_option("--controller", s.routing.controller,
                "what chooses among them; without it only all and none are measured");
  c->add_option("--policy", s.routing.policy, "ranked, stochastic or threshold (see vkflux sample --help)")
      ->capture_default_str();
  c->add_option("--policy-temperature", s.routing.temperature, "of the stochastic policy")
      ->capture_default_str()
      ->transform(real(kLeastTemperature, kMostTemperature));
  c->add_option("--prompt", s.prompts, "text; repeat it for several pictures");
  c->add_option("--prompts", s.prompts_file, "a .json file with an array of texts, or one prompt a line");
  c->add_option("--pictures", o->pictures, "at most so many of the prompts")
      ->capture_default_str()
      ->transform(whole(1, kMaxPictures));
  c->add_option("--knob", o->knob, "values of --quality-speed")
      ->capture_default_str()
      ->check(parsed_by(knob_values, "NUMBERS"));
  c->add_option("--fewer-steps", o->fewer, "steps of the baseline; default: 7/8 to 1/4 of the model's")
      ->check(parsed_by(fewer_steps, "NUMBERS"));
  c->add_option("--repeat", o->repeats, "timings of every setting")
      ->capture_default_str()
      ->transform(whole(1, 100));
  c->add_option("--seed", s.seed, "of the first picture; the next ones count up")
      ->capture_default_str()
      ->transform(any_seed());
  c->add_option("--steps", s.steps, "denoising steps; default: the model's")
      ->transform(whole(1, kMostSamplingSteps));
  c->add_option("--cfg", s.cfg, "true guidance, 1 = off; default: the model's")
      ->transform(real(0, kMostGuidance));
  c->add_option("--guidance", s.guidance, "distilled guidance; default: the model's")
      ->transform(real(0, kMostGuidance));
  c->add_option("--size", s.size, "WIDTHxHEIGHT in pixels; default: the model's")->check(picture_size());
  add_weights_option(*c, s.weights);
  add_lora_option(*c, s.loras);
  add_memory_options(*c, s.memory);
  c->add_option("--out", o->out, "the page")->capture_default_str();
}

}  // namespace vkflux::cli
