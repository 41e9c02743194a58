#include "app/cli/controller_session.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cmath>
#include <tuple>

#include "app/cli/data.h"
#include "app/cli/memory.h"
#include "app/cli/model_flags.h"
#include "app/cli/numbers.h"
#include "app/sweep/prompt_list.h"
#include "app/weights.h"
#include "autograd/ops.h"

namespace vkflux {
namespace {

constexpr size_t kPromptChunk = 16;

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
Condition encode(Pipeline& pipeline, const std::vector<std::string>& prompts) {
  std::vector<Condition> parts;
  for (size_t at = 0; at < prompts.size(); at += kPromptChunk) {
    check_interrupted("encoding the prompts");
    const size_t n = std::min(kPromptChunk, prompts.size() - at);
    parts.push_back(pipeline.encode(
        {prompts.begin() + static_cast<ptrdiff_t>(at), prompts.begin() + static_cast<ptrdiff_t>(at + n)}));
  }
  return Condition::concat(parts);
}

SamplingTaskOptions task_options(const ControllerSessionArgs& args) {
  SamplingTaskOptions o;
  std::tie(o.sampling.width, o.sampling.height) = cli::parse_size(args.size);
  o.sampling.steps = args.steps;
  if (args.cfg >= 0) o.sampling.cfg = static_cast<float>(args.cfg);
  if (args.guidance >= 0) o.sampling.guidance = static_cast<float>(args.guidance);
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
  cli::add_model_options(c, a.model, a.parts);
  c.add_option("--ttr", a.ttr, "the students' file, made by vkflux distill")->required();
  c.add_option("--prompts", a.prompts, "a file with one prompt a line (# starts a comment), or a .json array")
      ->required();
  c.add_option("--negative", a.negative, "what true guidance (--cfg) steers away from");
  c.add_option("--size", a.size, "WIDTHxHEIGHT in pixels; default: the model's")->check(cli::picture_size());
  c.add_option("--steps", a.steps, "denoising steps of a picture; default: the model's")
      ->transform(cli::whole(1, cli::kMostSamplingSteps));
  c.add_option("--cfg", a.cfg, "true guidance, 1 = off; default: the model's")
      ->transform(cli::real(0, cli::kMostGuidance));
  c.add_option("--guidance", a.guidance, "distilled guidance (dev models); default: the model's")
      ->transform(cli::real(0, cli::kMostGuidance));
  c.add_option("--images", a.images, "pictures that share a plan; their rewards are averaged")
      ->capture_default_str()
      ->transform(cli::whole(1, cli::kMostPictures));
  c.add_option("--seeds", a.seeds, "pictures of a prompt, each from its own noise")
      ->capture_default_str()
      ->transform(cli::whole(1, cli::kMostPictures));
  c.add_option("--picture-seed", a.picture_seed, "seed of the first picture's noise; the next ones count up")
      ->capture_default_str()
      ->transform(cli::any_seed());
  c.add_option("--noise", a.noise, "generator of the starting noise: counter, mersenne or philox")
      ->capture_default_str();
  c.add_option("--reward-on", a.reward_on, "what is compared: latents, or images (decoded)")
      ->capture_default_str()
      ->check(CLI::IsMember({"latents", "images"}));
  for (auto& [name, weight] : a.reward_weights) {
    CLI::Option* option = c.add_option(flag_of(name), weight, "weight of this distance in the reward")
                              ->transform(cli::real(0, 1e6));
    // What this build can't measure has no weight, not the weight 0.
    if (weight != 0) option->capture_default_str();
  }
  add_weights_option(c, a.weights);
  add_lora_option(c, a.loras);
  add_vram_option(c, a.memory);
}

void declare_inputs(const ControllerSessionArgs& args, FileUse& files) {
  cli::declare_model(files, args.model, args.parts);
  files.reads("--ttr", args.ttr);
  args.loras.declare(files);
  files.reads("--prompts", args.prompts);
}

ControllerSession::ControllerSession(const cli::Common& common, const ControllerSessionArgs& args)
    : quality(quality_of(args)), prompts(all_prompts({}, args.prompts)), args(args) {
  check_text("--negative", args.negative);
  device = cli::open_device(common, vram_of(args.memory));
  ModelOptions options = model_options(args.weights, args.parts);
  options.loras = args.loras.uses;
  pipeline = Pipeline::load(*device, args.model, options);
  cli::say_cuts("prompts", prompts, pipeline->cuts(prompts));
  const SamplingTaskOptions settings = task_options(args);
  const SamplingSetup setup = sampling_setup(pipeline->info(), settings.sampling);
  for (const std::string& note : setup.notes) spdlog::warn("{}", note);
  GenerateRequest picture;
  static_cast<SamplingRequest&>(picture) = settings.sampling;
  picture.prompts = {""};
  picture.batch = args.images;
  cli::hold_to_plan(*pipeline, picture);
  const Condition conditions = encode(*pipeline, prompts);
  std::optional<Condition> empty;
  if (setup.options.cfg != 1) empty = pipeline->encode({args.negative});
  device->stream().sync();
  pipeline->install_students(args.ttr);
  backbone = pipeline->backbone();
  const Students& students = *pipeline->students();
  eligible = layer_flags(students.serving(), students.model.replaceable().size());
  if (eligible_layers() == 0) {
    throw Error(
        ErrorCode::invalid_argument,
        fmt::format("{}: none of its {} students is ready, so there is nothing to decide: distil longer "
                    "(vkflux distill), or with a higher readiness threshold",
                    args.ttr, students.layers.size()));
  }
  if (quality->needs_images()) codec = pipeline->codec();
  task = std::make_unique<SamplingTask>(*backbone, pipeline->info(), codec.get(), conditions, empty, *quality,
                                        settings);
}

void ControllerSession::describe(RunInputs& inputs) const {
  cli::describe_model(inputs, args.model, args.parts);
  inputs.set_files("ttr", {args.ttr});
  inputs.set_texts("prompts", prompts);
  inputs.set_texts("negative", {args.negative});
  inputs.set("weights", args.weights);
  args.loras.describe(inputs);
  inputs.set("guidance",
             args.guidance >= 0 ? static_cast<float>(args.guidance) : pipeline->info().defaults.guidance);
  inputs.set("images", args.images);
  inputs.set("seeds", args.seeds);
  inputs.set("picture-seed", args.picture_seed);
  inputs.set("noise", args.noise);
  inputs.set("reward-on", args.reward_on);
  for (const auto& [name, weight] : args.reward_weights)
    if (weight != 0) inputs.set(flag_of(name).substr(2), weight);
}

int64_t ControllerSession::eligible_layers() const {
  return std::count(eligible.begin(), eligible.end(), uint8_t{1});
}

}  // namespace vkflux
