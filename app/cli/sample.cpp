#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "app/cli/cli.h"
#include "app/gallery.h"
#include "model/io/file.h"
#include "model/io/png.h"
#include "model/pipeline.h"
#include "train/picture_grid.h"

namespace vkflux::cli {
namespace {

namespace fs = std::filesystem;

constexpr int kGridColumns = 8;

struct Options {
  std::string model, prompts_file, negative, size, out = "out.png", html, grid, noise = "counter", init,
                                                   weights = "f32";
  std::vector<std::string> prompts;
  uint64_t seed = 0;
  int64_t steps = 0, batch = 1;
  float guidance = -1, cfg = -1;
  double strength = 0.6;
};

std::vector<std::string> all_prompts(const Options& o) {
  std::vector<std::string> out = o.prompts;
  if (!o.prompts_file.empty()) {
    std::string text = io::read_file(o.prompts_file, 1 << 20), line;
    text += '\n';
    for (char c : text) {
      if (c != '\n') {
        line += c;
        continue;
      }
      while (!line.empty() && (line.back() == '\r' || line.back() == ' ')) line.pop_back();
      if (!line.empty() && line[0] != '#') out.push_back(line);
      line.clear();
    }
  }
  if (out.empty())
    throw Error(ErrorCode::invalid_argument, "no prompt: give --prompt TEXT or --prompts FILE");
  return out;
}

std::pair<int64_t, int64_t> parse_size(const std::string& text) {
  if (text.empty()) return {0, 0};
  int w = 0, h = 0;
  char rest = 0;
  if (std::sscanf(text.c_str(), "%dx%d%c", &w, &h, &rest) != 2 || w <= 0 || h <= 0) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("--size {}: WIDTHxHEIGHT is expected, 64x64 say", text));
  }
  return {w, h};
}

DType parse_weights(const std::string& text) {
  return text == "f16" ? DType::f16 : text == "bf16" ? DType::bf16 : DType::f32;
}

RgbImage read_init(const std::string& path) {
  const io::Image8 p = io::read_png(path);
  RgbImage out{p.width, p.height, {}};
  for (size_t i = 0; i < p.rgba.size(); i += 4)
    out.rgb.insert(out.rgb.end(), p.rgba.begin() + static_cast<ptrdiff_t>(i),
                   p.rgba.begin() + static_cast<ptrdiff_t>(i) + 3);
  return out;
}

// Where picture i of n goes: into the folder --out, or beside the file --out with a number.
std::string target(const Options& o, size_t i, size_t n, const std::string& prompt) {
  const fs::path out(o.out);
  if (out.extension() == ".png" && n == 1) return o.out;
  if (out.extension() == ".png")
    return (out.parent_path() / fmt::format("{}-{:02}.png", out.stem().string(), i + 1)).string();
  std::string name;
  for (char c : prompt) name += std::isalnum(static_cast<unsigned char>(c)) ? c : '_';
  return (out / fmt::format("{:02}-{}.png", i + 1, name.substr(0, 60))).string();
}

int run(const Common& common, const Options& o) {
  const auto device = open_device(common);
  const std::vector<std::string> prompts = all_prompts(o);
  PipelineOptions options;
  options.weights = parse_weights(o.weights);
  const auto pipeline = Pipeline::load(*device, o.model, options);
  GenerateRequest request;
  request.prompts = prompts;
  request.negative = o.negative;
  request.batch = o.batch;
  std::tie(request.width, request.height) = parse_size(o.size);
  request.steps = o.steps;
  if (o.guidance >= 0) request.guidance = o.guidance;
  if (o.cfg >= 0) request.cfg = o.cfg;
  request.seed = o.seed;
  request.noise = parse_noise_mode(o.noise);
  if (!o.init.empty()) {
    request.init = read_init(o.init);
    request.strength = o.strength;
  }
  const auto job = pipeline->generate(request);
  std::unique_ptr<Progress> progress;
  while (job->step()) {
    const JobProgress& p = job->progress();
    if (!progress && p.steps > 0) progress = std::make_unique<Progress>("sampling", p.steps);
    if (progress) progress->update(p.step, name(p.phase));
    if (interrupted()) job->cancel();
  }
  progress.reset();
  const GenerateResult& r = job->result();
  for (const std::string& note : r.notes) spdlog::warn("{}", note);
  const size_t n = r.images.size();
  std::vector<GalleryPicture> gallery;
  std::vector<io::Image8> pictures;
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (size_t i = 0; i < n; ++i) {
    const std::string& prompt = prompts[prompts.size() == 1 ? 0 : i];
    const nlohmann::ordered_json settings{
        {"prompt", prompt},       {"negative", o.negative},
        {"seed", r.seed + i},     {"steps", r.steps},
        {"guidance", r.guidance}, {"cfg", r.cfg},
        {"width", r.width},       {"height", r.height},
        {"noise", o.noise},       {"model", fs::path(o.model).filename().string()},
        {"weights", o.weights}};
    const std::string a1111 = fmt::format(
        "{}\n{}Steps: {}, Sampler: Euler, CFG scale: {}, Distilled CFG Scale: {}, Seed: {}, Size: {}x{}, "
        "Model: {}",
        prompt, o.negative.empty() ? "" : "Negative prompt: " + o.negative + "\n", r.steps, r.cfg, r.guidance,
        r.seed + i, r.width, r.height, fs::path(o.model).filename().string());
    io::Image8 picture{static_cast<int>(r.width), static_cast<int>(r.height), {}};
    for (size_t k = 0; k < r.images[i].rgb.size(); k += 3) {
      picture.rgba.insert(picture.rgba.end(),
                          {r.images[i].rgb[k], r.images[i].rgb[k + 1], r.images[i].rgb[k + 2], 255});
    }
    const std::string path = target(o, i, n, prompt);
    const io::PngText text{{"parameters", a1111}, {"vkflux", settings.dump()}};
    io::write_png(path, picture, text);
    if (!common.json) fmt::print("{}\n", path);
    list.push_back({{"file", path}, {"settings", settings}});
    pictures.push_back(picture);
    gallery.push_back({prompt, r.seed + i, io::encode_png(picture, text)});
  }
  if (!o.grid.empty()) {
    io::write_png(o.grid,
                  picture_grid(pictures, std::min<int>(kGridColumns, static_cast<int>(pictures.size()))));
    if (!common.json) fmt::print("{}\n", o.grid);
  }
  const JobProgress& t = r.timings;
  if (!o.html.empty()) {
    io::atomic_write(o.html, gallery_html({device->caps().device_name,
                                           device->caps().driver_name + " " + device->caps().driver_info,
                                           fs::path(o.model).filename().string(), r.steps, r.cfg, r.guidance,
                                           r.width, r.height, t.encode_s, t.denoise_s, t.decode_s},
                                          gallery));
    if (!common.json) fmt::print("{}\n", o.html);
  }
  if (common.json) {
    fmt::print("{}\n", nlohmann::ordered_json{{"device", device->caps().device_name},
                                              {"images", list},
                                              {"encode_s", t.encode_s},
                                              {"denoise_s", t.denoise_s},
                                              {"decode_s", t.decode_s}}
                           .dump(1));
  }
  return kOk;
}

}  // namespace

void add_sample(CLI::App& app) {
  auto common = std::make_shared<Common>();
  auto o = std::make_shared<Options>();
  CLI::App* c =
      add_command(app, "sample", "draw pictures from text with a FLUX.1 checkpoint folder (diffusers layout)",
                  "vkflux sample --model models/emoji --prompt \"red apple\" --seed 1 --out apple.png",
                  common, [common, o] { return run(*common, *o); });
  c->add_option("--model", o->model, "checkpoint folder with model_index.json")->required();
  c->add_option("--prompt", o->prompts, "text; repeat it for several pictures");
  c->add_option("--prompts", o->prompts_file, "a file with one prompt a line (# starts a comment)");
  c->add_option("--negative", o->negative, "what true guidance (--cfg) steers away from; empty by default");
  c->add_option("--seed", o->seed, "of the first picture; the next ones count up")->capture_default_str();
  c->add_option("--batch", o->batch, "pictures of one prompt")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  c->add_option("--steps", o->steps, "denoising steps; default: the model's")->check(CLI::PositiveNumber);
  c->add_option("--guidance", o->guidance, "distilled guidance (dev models); default: the model's")
      ->check(CLI::NonNegativeNumber);
  c->add_option("--cfg", o->cfg, "true guidance, 1 = off; default: the model's")
      ->check(CLI::NonNegativeNumber);
  c->add_option("--size", o->size, "WIDTHxHEIGHT in pixels; default: the model's");
  c->add_option("--noise", o->noise,
                "generator of the starting noise: counter, mersenne (PyTorch's CPU) or philox")
      ->capture_default_str();
  c->add_option("--init", o->init, "a PNG to start from (image to image)");
  c->add_option("--strength", o->strength, "of image to image: 1 forgets the picture")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 1.0));
  c->add_option("--weights", o->weights, "storage of the weights on the device")
      ->capture_default_str()
      ->check(CLI::IsMember({"f32", "f16", "bf16"}));
  c->add_option("--out", o->out, "a .png file (numbered when there are several), or a folder")
      ->capture_default_str();
  c->add_option("--grid", o->grid, "also write one PNG with all pictures in rows of eight");
  c->add_option("--html", o->html, "also write one self-contained page with all pictures");
}

}  // namespace vkflux::cli
