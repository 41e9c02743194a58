// Drawing for `vkflux sample`: from flags to requests, from requests to pictures.
#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <tuple>

#include "app/cli/data.h"
#include "app/cli/model_flags.h"
#include "app/cli/numbers.h"
#include "app/cli/sample.h"
#include "app/weights.h"

namespace vkflux::cli {
namespace {

// Once for a setting, before its first step.
void say_plan(SampleSession& session, const Shot& shot, const GenerateJob& job) {
  const RoutingArgs& args = session.routing->args();
  if (!args.layers.empty() || !session.said.insert(shot.quality_speed).second) return;
  const int64_t steps = job.progress().steps - job.progress().step,
                ready = static_cast<int64_t>(session.pipeline->students()->serving().size());
  spdlog::info(
      "--quality-speed {:g}: students are to serve {} of {} attention calls ({} steps of {} layers whose "
      "students are ready)",
      shot.quality_speed, job.planned(), steps * ready, steps, ready);
}

// What an interrupted run has made so far; that it can't be written changes nothing about the interruption.
void keep_unfinished(const Shot& shot, const GenerateJob& job, const GenerateRequest& request) {
  try {
    save_latents(shot.unfinished, job, request, shot.model);
    spdlog::warn("{}: the latents after step {} of {}; --from-latents decodes them", shot.unfinished,
                 job.progress().step, job.progress().steps);
  } catch (const Error& e) {
    spdlog::error("the latents are lost: {}", e.what());
  }
}

}  // namespace

void add_routing_options(CLI::App& c, RoutingArgs& a) {
  c.add_option("--ttr", a.ttr, "students of the attention layers (a file of `vkflux distill`)");
  CLI::Option* controller = c.add_option(
      "--controller", a.controller,
      "controller that chooses which layers use their students (a file of `vkflux train-controller`)");
  c.add_option("--quality-speed", a.quality_speed,
               "share of the attention calls that goes to students, from 0 (none) to 1 (all whose students "
               "are ready);\n"
               "the default is 0.5, or 1 without a controller")
      ->transform(real(0, 1));
  c.add_option(
       "--policy", a.policy,
       "how the controller decides. ranked: the share of all calls that --quality-speed says, those that "
       "need full\nattention least first. stochastic (drawn for every step) and threshold are the "
       "reference's: --quality-speed\nmoves the probability at which a call keeps full attention from 0.1 "
       "to 0.9, so the share depends on the controller")
      ->capture_default_str()
      ->needs(controller);
  c.add_option("--policy-temperature", a.temperature, "temperature of the stochastic policy")
      ->capture_default_str()
      ->transform(real(kLeastTemperature, kMostTemperature))
      ->needs(controller);
  c.add_option("--layers", a.layers,
               "without a controller: layers that use their students, 0,2,3 say (layers that may be replaced "
               "count from 0)");
}

SampleSession::SampleSession(const Common& common, const SampleArgs& args) {
  const RoutingArgs& r = args.routing;
  const bool asked = !r.controller.empty() || r.quality_speed || !r.layers.empty();
  if (r.ttr.empty() && (asked || args.compare)) {
    throw Error(ErrorCode::invalid_argument,
                "--controller, --quality-speed, --layers and --compare need the students' file: give --ttr");
  }
  device = open_device(common, vram_of(args.memory));
  profile = std::make_unique<ProfileSession>(*device, args.profile);
  ModelOptions options = with_memory(model_options(args.weights, args.parts), args.memory);
  options.loras = args.loras.uses;
  pipeline = Pipeline::load(*device, args.model, options);
  previewer = std::make_unique<Previewer>(*pipeline, args.preview);
  if (!r.ttr.empty()) routing = std::make_unique<RouterSource>(*pipeline, r);
  std::vector<std::string> read = args.texts;
  read.insert(read.end(), args.negative.begin(), args.negative.end());
  say_cuts("prompts", read, pipeline->cuts(read));
}

void declare_inputs(const SampleArgs& args, FileUse& files) {
  declare_model(files, args.model, args.parts);
  args.loras.declare(files);
  files.reads("--prompts", args.prompts_file);
  files.reads("--from-image", args.from_image);
  declare_pictures(args.pictures, files);
  declare_preview(args.preview, files);
  files.reads("--ttr", args.routing.ttr);
  files.reads("--controller", args.routing.controller);
  declare_inputs(args.sampling, files);
}

GenerateRequest base_request(const SampleArgs& args) {
  GenerateRequest request;
  request.negative = args.negative;
  request.batch = args.batch;
  std::tie(request.width, request.height) = parse_size(args.size);
  request.steps = args.steps;
  if (args.guidance >= 0) request.guidance = args.guidance;
  if (args.cfg >= 0) request.cfg = args.cfg;
  request.seed = args.seed;
  request.replay = !args.no_replay;
  request.noise = parse_noise_mode(args.noise);
  apply(args.sampling, request);
  read_pictures(args.pictures, request);
  return request;
}

std::vector<Drawn> draw(SampleSession& session, const Shot& shot, bool routed, const std::string& what,
                        AttentionTap* tap) {
  GenerateRequest request = shot.request;
  if (routed) request.router = session.routing->router(shot.quality_speed, shot.temperature);
  request.tap = tap;
  session.previewer->prepare(request);
  const auto job = session.pipeline->generate(request);
  for (const std::string& note : job->result().notes) say_once(note);
  std::unique_ptr<Progress> progress;
  bool saved = false;
  int64_t first = 0;  // step of the run
  while (job->step()) {
    const JobProgress& p = job->progress();
    if (!progress) first = p.step;
    if (routed && !progress) say_plan(session, shot, *job);
    if (!progress && p.steps > 0) progress = std::make_unique<Progress>(what, p.steps);
    if (progress) progress->update(p.step, name(p.phase));
    if (p.phase == JobPhase::decode && !shot.save_latents.empty() && !saved) {
      save_latents(shot.save_latents, *job, request, shot.model);
      saved = true;
    }
    if (!interrupted()) continue;
    if (!saved && !shot.unfinished.empty() && job->latents().defined() && p.step > first) {
      keep_unfinished(shot, *job, request);
    }
    job->cancel();
  }
  progress.reset();
  GenerateResult result = job->result();
  const std::vector<float> latents = result.latents.to_host();
  const std::vector<RgbImage> images = std::move(result.images);
  result.images.clear();
  result.latents = {};
  std::vector<Drawn> out;
  const size_t each = latents.size() / images.size();
  for (size_t i = 0; i < images.size(); ++i) {
    Drawn d;
    d.prompt = request.prompts[request.prompts.size() == 1 ? 0 : i];
    if (!request.negative.empty()) d.negative = request.negative[request.negative.size() == 1 ? 0 : i];
    d.seed = result.seed + i;
    d.image = images[i];
    d.latent.assign(latents.begin() + static_cast<ptrdiff_t>(i * each),
                    latents.begin() + static_cast<ptrdiff_t>((i + 1) * each));
    d.run = result;
    d.index = i;
    d.routed = routed;
    d.quality_speed = shot.quality_speed;
    d.temperature = shot.temperature;
    d.strength = request.init ? result.strength : 1;
    d.labels = shot.labels;
    out.push_back(std::move(d));
  }
  return out;
}

}  // namespace vkflux::cli
