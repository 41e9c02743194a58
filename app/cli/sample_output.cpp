// What `vkflux sample` writes about single pictures.
#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <filesystem>

#include "app/cli/data.h"
#include "app/cli/sample.h"
#include "app/contact_sheet.h"
#include "model/io/decimal.h"
#include "model/io/file.h"
#include "model/io/json.h"
#include "model/io/picture_file.h"
#include "model/io/png.h"

namespace vkflux::cli {
namespace {

namespace fs = std::filesystem;

/// As a value in a list with commas: quoted where it could be taken for more than one.
std::string listed(const std::string& text) {
  return text.find_first_of(",:\n\"") == std::string::npos ? text : io::json_text(io::Json(text));
}

/// The line that other programs read from a PNG.
std::string parameters_text(const Drawn& d, const SampleArgs& args) {
  std::string out = fmt::format(
      "{}\n{}Steps: {}, Sampler: {},{} CFG scale: {}, Distilled CFG Scale: {}, Seed: {}, Size: {}x{}, "
      "Model: {}",
      d.prompt, d.negative.empty() ? "" : "Negative prompt: " + d.negative + "\n", d.run.steps,
      sampler_row(d.run.sampler).label,
      args.sampling.schedule.empty() ? "" : fmt::format(" Schedule type: {},", args.sampling.schedule),
      d.run.cfg, d.run.guidance, d.seed, d.run.width, d.run.height, listed(io::last_name(args.model)));
  if (!args.loras.uses.empty()) {
    std::vector<std::string> loras;
    for (const auto& l : args.loras.json())
      loras.push_back(fmt::format("{}: {}", l["name"].get<std::string>(), l["weight"].get<double>()));
    out += ", Lora: " + io::json_text(io::Json(fmt::format("{}", fmt::join(loras, ", "))));
  }
  if (!args.pictures.init.empty()) {
    out += fmt::format(", Denoising strength: {}, Init image: {}", d.strength,
                       listed(io::last_name(args.pictures.init)));
  }
  return out;
}

std::string decibels(double psnr) {
  return std::isfinite(psnr) ? fmt::format("{:.2f} dB", psnr) : "equal";
}

}  // namespace

bool is_stream(const std::string& path) {
  return !path.empty() && io::destination(path).kind == io::Destination::Kind::stream;
}

bool is_picture_name(const std::string& path) {
  std::string extension = fs::path(path).extension().string();
  for (char& c : extension) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  for (const char* other : {".bmp", ".gif", ".tif", ".tiff", ".avif", ".jxl", ".heic"}) {
    if (extension == other)
      throw Error(ErrorCode::invalid_argument,
                  fmt::format("--out {}: pictures are written as .png, .jpg or .webp", path));
  }
  return io::picture_format(path).has_value();
}

std::string unfinished_file(const SampleArgs& args) {
  const SamplingArgs& s = args.sampling;
  if (!s.save_latents.empty()) return s.save_latents;
  if (!s.from_latents.empty() || is_stream(args.out)) return {};
  const std::string path = is_picture_name(args.out)
                               ? with_suffix(args.out, "-unfinished.safetensors")
                               : (fs::path(args.out) / "unfinished.safetensors").string();
  std::error_code none;
  return !s.from_noise.empty() && fs::equivalent(path, s.from_noise, none) ? std::string() : path;
}

std::string picture_path(const SampleArgs& args, size_t i, size_t n, const std::string& prompt) {
  const fs::path out(args.out);
  if (n == 1 && (is_picture_name(args.out) || is_stream(args.out))) return args.out;
  if (is_picture_name(args.out)) {
    return (out.parent_path() /
            fmt::format("{}-{:02}{}", out.stem().string(), i + 1, out.extension().string()))
        .string();
  }
  std::string name;
  for (char c : prompt) name += std::isalnum(static_cast<unsigned char>(c)) ? c : '_';
  return (out / fmt::format("{:02}-{}.png", i + 1, name.substr(0, 60))).string();
}

std::string with_suffix(const std::string& path, const std::string& suffix) {
  const fs::path p(path);
  return (p.parent_path() / (p.stem().string() + suffix)).string();
}

nlohmann::ordered_json settings_json(const Drawn& d, const SampleArgs& args) {
  nlohmann::ordered_json j{{"prompt", d.prompt},
                           {"negative", d.negative},
                           {"seed", d.seed},
                           {"steps", d.run.steps},
                           {"guidance", io::decimal(d.run.guidance)},
                           {"cfg", io::decimal(d.run.cfg)},
                           {"width", d.run.width},
                           {"height", d.run.height},
                           {"noise", args.noise},
                           {"sampler", d.run.sampler},
                           {"model", io::last_name(args.model)},
                           {"weights", args.weights}};
  for (const auto& [part, file] : args.parts.files) j[part] = io::last_name(file);
  if (!args.parts.variant.empty()) j["variant"] = args.parts.variant;
  if (args.parts.text_length > 0) j["text_length"] = args.parts.text_length;
  if (!args.parts.text_states.empty()) j["text_states"] = args.parts.text_states;
  if (args.parts.plain_prompts) j["plain_prompts"] = true;
  if (args.parts.reference_cache != "auto") j["reference_cache"] = args.parts.reference_cache;
  if (!args.loras.uses.empty()) j["loras"] = args.loras.json();
  const SamplingArgs& s = args.sampling;
  for (const auto& [key, text] : {std::pair{"schedule", &s.schedule}, std::pair{"sigmas", &s.sigmas}}) {
    if (!text->empty()) j[key] = *text;
  }
  for (const auto& [key, value] : {std::pair{"shift", &s.shift}, std::pair{"base_shift", &s.base_shift},
                                   std::pair{"max_shift", &s.max_shift}}) {
    if (*value) j[key] = **value;
  }
  for (const auto& [key, file] :
       {std::pair{"from_latents", &s.from_latents}, std::pair{"from_noise", &s.from_noise}}) {
    if (!file->empty()) j[key] = io::last_name(*file);
  }
  add_picture_settings(args.pictures, d.strength, j);
  if (d.routed) {
    j["ttr"] = fs::path(args.routing.ttr).filename().string();
    if (!args.routing.controller.empty()) {
      j["controller"] = fs::path(args.routing.controller).filename().string();
      j["policy"] = args.routing.policy;
      j["policy_temperature"] = d.temperature;
    }
    if (args.routing.layers.empty()) {
      j["quality_speed"] = d.quality_speed;
    } else {
      j["layers"] = args.routing.layers;
    }
  }
  return j;
}

std::string save_picture(const std::string& path, const Drawn& d, const SampleArgs& args) {
  std::string parameters = io::valid_utf8(parameters_text(d, args));
  std::replace(parameters.begin(), parameters.end(), '\0', ' ');  // a text of a PNG ends at a zero byte
  const io::PngText text{{"parameters", parameters}, {"vkflux", io::json_text(settings_json(d, args))}};
  std::vector<std::string> left_out;
  const std::string file =
      io::encode_picture(to_image8(d.image), io::picture_format(path).value_or(io::PictureFormat::png),
                         static_cast<int>(args.quality), text, &left_out);
  for (const std::string& keyword : left_out)
    say_once(fmt::format("the text \"{}\" is too long for a JPEG: it was left out; a PNG keeps it", keyword));
  io::atomic_write(path, file);
  return file;
}

Compared compare(const Drawn& drawn, const Drawn& full) {
  return {compare_pictures(drawn.image, full.image), compare_vectors(drawn.latent, full.latent)};
}

nlohmann::ordered_json compared_json(const Compared& c) {
  nlohmann::ordered_json j;
  j["psnr"] = std::isfinite(c.picture.psnr) ? nlohmann::ordered_json(c.picture.psnr) : nullptr;
  j["identical"] = !std::isfinite(c.picture.psnr);
  j["ssim"] = c.picture.ssim;
  j["cosine"] = c.picture.cosine;
  j["rmse"] = c.picture.rmse;
  j["latent_cosine"] = c.latent.cosine;
  j["latent_rmse"] = c.latent.rmse;
  return j;
}

ComparisonFiles comparison_files(const std::string& picture) {
  return {with_suffix(picture, "-full.png"), with_suffix(picture, "-difference.png"),
          with_suffix(picture, "-compare.png"), with_suffix(picture, "-compare.json")};
}

nlohmann::ordered_json save_comparison(const std::string& path, const Drawn& routed, const Drawn& full,
                                       const SampleArgs& args, int64_t layers) {
  const Compared c = compare(routed, full);
  const RunSummary fast = summarise(routed.run.reports, layers), slow = summarise(full.run.reports, layers);
  const ComparisonFiles files = comparison_files(path);
  save_picture(files.full, full, args);
  const io::Image8 difference = to_image8(difference_picture(routed.image, full.image, kDifferenceGain));
  io::write_png(files.difference, difference);
  io::write_png(
      files.sheet,
      contact_sheet({{to_image8(full.image),
                      {"full attention", fmt::format("{:.1f} ms a step", slow.median_step_ms), full.prompt}},
                     {to_image8(routed.image),
                      {fmt::format("routed, {:.0f}% students", 100 * fast.student_share),
                       fmt::format("{:.1f} ms a step", fast.median_step_ms)}},
                     {difference,
                      {fmt::format("difference x {}", kDifferenceGain),
                       fmt::format("PSNR {}, SSIM {:.4f}", decibels(c.picture.psnr), c.picture.ssim),
                       fmt::format("latent cosine {:.5f}", c.latent.cosine)}}},
                    3));
  nlohmann::ordered_json j = compared_json(c);
  j["full_step_ms"] = slow.median_step_ms;
  j["routed_step_ms"] = fast.median_step_ms;
  j["full_flops"] = slow.flops;
  j["routed_flops"] = fast.flops;
  j["student_share"] = fast.student_share;
  j["files"] = {{"full", files.full}, {"difference", files.difference}, {"side_by_side", files.sheet}};
  return j;
}

}  // namespace vkflux::cli
