// What `vkflux sample` writes about single pictures.
#include <fmt/format.h>

#include <cctype>
#include <cmath>
#include <filesystem>

#include "app/cli/sample.h"
#include "app/contact_sheet.h"
#include "model/io/decimal.h"
#include "model/io/file.h"
#include "model/io/png.h"

namespace vkflux::cli {
namespace {

namespace fs = std::filesystem;

std::string model_name(const SampleArgs& args) {
  const fs::path path = fs::path(args.model).lexically_normal();
  return (path.has_filename() ? path : path.parent_path()).filename().string();
}

/// The line that other programs read from a PNG.
std::string parameters_text(const Drawn& d, const SampleArgs& args) {
  return fmt::format(
      "{}\n{}Steps: {}, Sampler: Euler, CFG scale: {}, Distilled CFG Scale: {}, Seed: {}, Size: {}x{}, "
      "Model: {}",
      d.prompt, d.negative.empty() ? "" : "Negative prompt: " + d.negative + "\n", d.run.steps, d.run.cfg,
      d.run.guidance, d.seed, d.run.width, d.run.height, model_name(args));
}

std::string decibels(double psnr) {
  return std::isfinite(psnr) ? fmt::format("{:.2f} dB", psnr) : "equal";
}

}  // namespace

std::string picture_path(const SampleArgs& args, size_t i, size_t n, const std::string& prompt) {
  const fs::path out(args.out);
  if (out.extension() == ".png" && n == 1) return args.out;
  if (out.extension() == ".png")
    return (out.parent_path() / fmt::format("{}-{:02}.png", out.stem().string(), i + 1)).string();
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
                           {"model", model_name(args)},
                           {"weights", args.weights}};
  if (!args.init.empty()) j["strength"] = d.strength;
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
  const io::PngText text{{"parameters", parameters_text(d, args)}, {"vkflux", settings_json(d, args).dump()}};
  const std::string png = io::encode_png(to_image8(d.image), text);
  io::atomic_write(path, png);
  return png;
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

nlohmann::ordered_json save_comparison(const std::string& path, const Drawn& routed, const Drawn& full,
                                       const SampleArgs& args, int64_t layers) {
  const Compared c = compare(routed, full);
  const RunSummary fast = summarise(routed.run.reports, layers), slow = summarise(full.run.reports, layers);
  const std::string full_path = with_suffix(path, "-full.png"),
                    sheet_path = with_suffix(path, "-compare.png"),
                    difference_path = with_suffix(path, "-difference.png");
  save_picture(full_path, full, args);
  const io::Image8 difference = to_image8(difference_picture(routed.image, full.image, kDifferenceGain));
  io::write_png(difference_path, difference);
  io::write_png(
      sheet_path,
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
  j["files"] = {{"full", full_path}, {"difference", difference_path}, {"side_by_side", sheet_path}};
  return j;
}

}  // namespace vkflux::cli
