#include "app/controller_session.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>

#include "app/sweep/prompt_list.h"
#include "app/weights.h"
#include "autograd/ops.h"
#include "model/io/file.h"

namespace vkflux {
namespace {

constexpr size_t kPromptChunk = 16;

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

std::string flag_of(std::string reward) {
  std::replace(reward.begin(), reward.end(), '_', '-');
  return "--" + reward + "-weight";
}

std::unique_ptr<QualityLoss> quality_of(const ControllerSessionArgs& args) {
  const std::vector<std::pair<std::string, double>> weights(args.reward_weights.begin(),
                                                            args.reward_weights.end());
  auto quality = std::make_unique<QualityLoss>(weights, parse_reward_on(args.reward_on));
  if (!quality->learns()) {
    throw Error(ErrorCode::invalid_argument,
                "every reward weight is 0, so there is nothing to learn from: give --rmse-weight or "
                "--cosine-weight");
  }
  return quality;
}

/// A few prompts at a time, so that long lists fit.
FluxCondition encode(Pipeline& pipeline, const std::vector<std::string>& prompts) {
  std::vector<Tensor> txt, y;
  for (size_t at = 0; at < prompts.size(); at += kPromptChunk) {
    const size_t n = std::min(kPromptChunk, prompts.size() - at);
    const FluxCondition c = pipeline.encode(
        {prompts.begin() + static_cast<ptrdiff_t>(at), prompts.begin() + static_cast<ptrdiff_t>(at + n)});
    txt.push_back(c.txt);
    y.push_back(c.y);
  }
  return {op::concat(txt, 0), op::concat(y, 0)};
}

FluxTaskOptions task_options(const Pipeline& pipeline, const ControllerSessionArgs& args) {
  const PipelineDefaults& d = pipeline.defaults();
  const AutoencoderConfig& vae = pipeline.autoencoder_config();
  const auto [width, height] = parse_size(args.size);
  const int64_t unit = pipeline.pixels_per_token(), f = vae.factor();
  FluxTaskOptions o;
  o.columns = (width ? width : d.width) / unit;
  o.rows = (height ? height : d.height) / unit;
  if (o.columns < 1 || o.rows < 1) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("--size {}: the smallest picture is {}x{}", args.size, unit, unit));
  }
  o.width = o.columns * unit;
  o.height = o.rows * unit;
  o.latent = {vae.latent_channels, o.height / f, o.width / f};
  o.levels = pipeline.schedule().levels(args.steps ? args.steps : d.steps, o.rows * o.columns);
  o.cfg = args.cfg >= 0 ? static_cast<float>(args.cfg) : d.cfg;
  o.guidance = args.guidance >= 0 ? static_cast<float>(args.guidance) : d.guidance;
  o.images = args.images;
  o.seeds = args.seeds;
  o.seed = args.picture_seed;
  o.noise = parse_noise_mode(args.noise);
  return o;
}

}  // namespace

ControllerSessionArgs::ControllerSessionArgs() {
  for (const std::string& name : reward_names())
    reward_weights[name] = name == "rmse" || name == "cosine" ? 1 : 0;
}

void add_controller_options(CLI::App& c, ControllerSessionArgs& a) {
  c.add_option("--model", a.model, "checkpoint folder with model_index.json")->required();
  c.add_option("--ttr", a.ttr, "the students' file, made by vkflux distill")->required();
  c.add_option("--prompts", a.prompts, "a file with one prompt a line (# starts a comment), or a .json array")
      ->required();
  c.add_option("--negative", a.negative, "what true guidance (--cfg) steers away from");
  c.add_option("--size", a.size, "WIDTHxHEIGHT in pixels; default: the model's");
  c.add_option("--steps", a.steps, "denoising steps of a picture; default: the model's")
      ->check(CLI::PositiveNumber);
  c.add_option("--cfg", a.cfg, "true guidance, 1 = off; default: the model's")->check(CLI::NonNegativeNumber);
  c.add_option("--guidance", a.guidance, "distilled guidance (dev models); default: the model's")
      ->check(CLI::NonNegativeNumber);
  c.add_option("--images", a.images, "pictures that share a plan; their rewards are averaged")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  c.add_option("--seeds", a.seeds, "pictures of a prompt, each from its own noise")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  c.add_option("--picture-seed", a.picture_seed, "seed of the first picture's noise; the next ones count up")
      ->capture_default_str();
  c.add_option("--noise", a.noise, "generator of the starting noise: counter, mersenne or philox")
      ->capture_default_str();
  c.add_option("--reward-on", a.reward_on, "what is compared: latents, or images (decoded)")
      ->capture_default_str()
      ->check(CLI::IsMember({"latents", "images"}));
  for (auto& [name, weight] : a.reward_weights)
    c.add_option(flag_of(name), weight, "weight of this distance in the reward")->capture_default_str();
  add_weights_option(c, a.weights);
}

std::vector<std::string> read_prompt_file(const std::string& path) {
  std::vector<std::string> out;
  if (std::filesystem::path(path).extension() == ".json") {
    out = load_prompt_list(path);
  } else {
    std::string line;
    for (const char c : io::read_file(path, 16 << 20) + "\n") {
      if (c != '\n') {
        line += c;
        continue;
      }
      while (!line.empty() && (line.back() == '\r' || line.back() == ' ')) line.pop_back();
      if (!line.empty() && line[0] != '#') out.push_back(line);
      line.clear();
    }
  }
  if (out.empty()) throw Error(ErrorCode::invalid_argument, path + " holds no prompt");
  return out;
}

ControllerSession::ControllerSession(const cli::Common& common, const ControllerSessionArgs& args)
    : quality(quality_of(args)) {
  const std::vector<std::string> texts = read_prompt_file(args.prompts);
  prompts = texts.size();
  device = cli::open_device(common);
  const PipelineOptions options = pipeline_options(args.weights);
  pipeline = Pipeline::load(*device, args.model, options);
  const FluxTaskOptions task_settings = task_options(*pipeline, args);
  const FluxCondition conditions = encode(*pipeline, texts);
  std::optional<FluxCondition> empty;
  if (task_settings.cfg != 1) empty = pipeline->encode({args.negative});
  device->stream().sync();
  transformer = pipeline->transformer();
  const StudentModel model = student_model(*transformer);
  students = load_students(*device, args.ttr, model);
  eligible = layer_flags(students.ready(), model.single_blocks);
  if (eligible_layers() == 0) {
    throw Error(
        ErrorCode::invalid_argument,
        fmt::format("{}: none of its {} students is ready, so there is nothing to decide: distil longer "
                    "(vkflux distill), or with a higher readiness threshold",
                    args.ttr, students.layers.size()));
  }
  install(students, transformer->attention());
  if (quality->needs_images()) autoencoder = pipeline->autoencoder();
  task = std::make_unique<FluxRoutingTask>(*transformer, autoencoder.get(), conditions, empty, *quality,
                                           task_settings);
}

int64_t ControllerSession::eligible_layers() const {
  return std::count(eligible.begin(), eligible.end(), uint8_t{1});
}

}  // namespace vkflux
