#include "app/cli/sample_sampling.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "app/cli/numbers.h"
#include "model/io/decimal.h"
#include "model/io/json.h"
#include "model/io/safetensors.h"
#include "model/sampler/latents_file.h"
#include "vk/error.h"

namespace vkflux::cli {
namespace {

constexpr double kMostShift = 1000, kMostMu = 100;
constexpr size_t kMostPrompts = 4096;

std::string sampler_help() {
  std::string out = "how a step is made; default: what the model's scheduler_config.json names.\n";
  for (const SamplerRow& row : samplers()) out += fmt::format("{}: {}\n", row.name, row.title);
  out.pop_back();
  return out;
}

std::string schedule_help() {
  std::string out = "how the noise levels are spread.\n";
  for (const SpacingRow& row : spacings()) out += fmt::format("{}: {}\n", row.name, row.title);
  out.pop_back();
  return out;
}

}  // namespace

std::vector<double> parse_sigmas(const std::string& text) {
  std::vector<double> out;
  // Numbers apart by commas or blanks; two commas with nothing between them leave a number out.
  bool number = false;
  for (size_t at = 0; at <= text.size();) {
    const size_t end = std::min(text.find_first_of(", \t", at), text.size());
    if (end > at)
      out.push_back(real_number(text.substr(at, end - at), Range<double>{0, 1}, "--sigmas, noise level"));
    number = number || end > at;
    if (end == text.size() || text[end] == ',') {
      if (!number)
        throw Error(
            ErrorCode::invalid_argument,
            fmt::format("--sigmas \"{}\": a noise level is missing between commas or at an end", text));
      number = false;
    }
    at = end + 1;
  }
  check_levels(out);
  if (out.size() > kMostSamplingSteps + 1)
    throw Error(ErrorCode::invalid_argument,
                fmt::format("--sigmas has {} levels: expected 2 to {}", out.size(), kMostSamplingSteps + 1));
  return out;
}

void add_sampling_options(CLI::App& c, SamplingArgs& a) {
  c.add_option("--sampler", a.sampler, sampler_help())
      ->check(parsed_by([](const std::string& text) { sampler_row(text); }, "NAME"));
  CLI::Option* schedule =
      c.add_option("--schedule", a.schedule, schedule_help())
          ->check(parsed_by([](const std::string& text) { parse_spacing(text); }, "NAME"));
  CLI::Option* sigmas =
      c.add_option(
           "--sigmas", a.sigmas,
           "noise levels by hand in place of --steps and --schedule: \"1,0.9,0.7,0.4,0\" makes four steps")
          ->check(parsed_by([](const std::string& text) { parse_sigmas(text); }, "LEVELS"))
          ->excludes(schedule)
          ->excludes(c.get_option("--steps"));
  CLI::Option* shift =
      c.add_option(
           "--shift", a.shift,
           "moves the levels towards noise by s u / (1 + (s - 1) u), at every size alike (1: not at all)")
          ->transform(real(1e-3, kMostShift))
          ->excludes(sigmas);
  for (auto [flag, to, at] : {std::tuple{"--base-shift", &a.base_shift, "base_image_seq_len (256)"},
                              std::tuple{"--max-shift", &a.max_shift, "max_image_seq_len (4096)"}}) {
    c.add_option(
         flag, *to,
         fmt::format("the logarithm of a shift that grows with the size: its value at {} image tokens", at))
        ->transform(real(-kMostMu, kMostMu))
        ->excludes(shift)
        ->excludes(sigmas);
  }
  c.add_option(
      "--save-latents", a.save_latents,
      "a .safetensors file for the latents, written before they are decoded, with the starting noise and "
      "the noise levels; an interrupted run leaves in it what it has");
  c.add_option("--from-latents", a.from_latents,
               "decode the latents of such a file, or of diffusers' output_type=\"latent\"; draws nothing");
  c.add_option(
       "--from-noise", a.from_noise,
       "begin with the noise of such a file, or with any latents of the right shape, in place of the seed's")
      ->excludes(c.get_option("--from-latents"));
}

void apply(const SamplingArgs& a, GenerateRequest& r) {
  r.sampler = a.sampler;
  r.schedule = a.schedule;
  if (!a.sigmas.empty()) r.levels = parse_sigmas(a.sigmas);
  r.shift = a.shift;
  r.base_shift = a.base_shift;
  r.max_shift = a.max_shift;
}

/// What is recorded with the picture is how its latents were made.
void take_settings(const LatentsFile& file, GenerateRequest& r) {
  const auto take = [&](const char* key, auto& value) {
    const auto it = file.settings.find(key);
    if (it == file.settings.end()) return;
    const char* end = it->second.data() + it->second.size();
    std::remove_reference_t<decltype(value)> read{};
    const auto parsed = std::from_chars(it->second.data(), end, read);
    if (parsed.ec == std::errc() && parsed.ptr == end) value = read;
  };
  int64_t steps = 0;
  float guidance = NAN, cfg = NAN;
  take("seed", r.seed);
  take("steps", steps);
  take("guidance", guidance);
  take("cfg", cfg);
  if (steps >= 1 && steps <= kMostSamplingSteps) r.steps = steps;
  if (guidance >= 0 && guidance <= kMostGuidance) r.guidance = guidance;
  if (cfg >= 0 && cfg <= kMostGuidance) r.cfg = cfg;
}

void read_files(const SamplingArgs& a, Pipeline& pipeline, GenerateRequest& r) {
  const bool decodes = !a.from_latents.empty();
  if (!decodes && a.from_noise.empty()) return;
  const ModelInfo& info = pipeline.info();
  const LatentsFile file = read_latents(pipeline.device(), decodes ? a.from_latents : a.from_noise,
                                        decodes ? LatentKind::latents : LatentKind::noise,
                                        info.layout.geometry, info.pixels_per_cell, r.width, r.height);
  const Tensor& x = decodes ? file.latents : file.noise;
  (decodes ? r.latents : r.start_noise) = x;
  if (!r.width && !r.height) {
    r.width = x.dim(3) * info.pixels_per_cell;
    r.height = x.dim(2) * info.pixels_per_cell;
  }
  if (r.prompts.size() == 1 && r.batch == 1) r.batch = x.dim(0);
  const auto of = [&](const char* key) {
    const auto it = file.settings.find(key);
    return it == file.settings.end() ? std::string() : it->second;
  };
  if (decodes) take_settings(file, r);
  if (decodes && of("step") != of("steps"))
    spdlog::warn("{}: its run ended after step {} of {}, so some noise is left", a.from_latents, of("step"),
                 of("steps"));
}

void declare_inputs(const SamplingArgs& args, FileUse& files) {
  files.reads("--from-latents", args.from_latents);
  files.reads("--from-noise", args.from_noise);
}

std::vector<std::string> prompts_of_latents(const std::string& path) {
  const io::SafetensorsFile file(path);
  if (const auto it = file.metadata().find("prompts"); it != file.metadata().end()) {
    try {
      const io::Json json = io::parse_json(it->second, path);
      if (json.is_array() && !json.empty() && json.size() <= kMostPrompts)
        return json.get<std::vector<std::string>>();
    } catch (const std::exception&) {
      // Somebody else's text under this name.
    }
  }
  return {""};
}

void save_latents(const std::string& path, const GenerateJob& job, const GenerateRequest& request,
                  const std::string& model) {
  const GenerateResult& r = job.result();
  LatentsFile file;
  file.latents = job.latents();
  file.noise = r.noise;
  file.levels = r.levels;
  io::Json prompts = io::Json::array();
  for (const std::string& prompt : request.prompts) prompts.push_back(prompt);
  file.settings = {{"format", "vkflux latents 1"},
                   {"prompts", io::json_text(prompts)},
                   {"model", io::valid_utf8(io::last_name(model))},
                   {"seed", fmt::format("{}", r.seed)},
                   {"sampler", r.sampler},
                   {"guidance", fmt::format("{}", r.guidance)},
                   {"cfg", fmt::format("{}", r.cfg)},
                   {"width", fmt::format("{}", r.width)},
                   {"height", fmt::format("{}", r.height)},
                   {"step", fmt::format("{}", job.progress().step)},
                   {"steps", fmt::format("{}", r.steps)}};
  if (!request.schedule.empty()) file.settings["schedule"] = request.schedule;
  file.save(path);
}

}  // namespace vkflux::cli
