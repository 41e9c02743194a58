#include "train/distill/distill_run.h"

#include <utility>

#include "train/checkpoint.h"
#include "vk/error.h"

namespace vkflux {

namespace {

// What neither changes students nor follows from something else that is compared.
bool changes_nothing(const std::string& setting) {
  return setting == "steps" || setting == "comet_log_every" || setting == "enable_memory_reserve" ||
         setting == "cfg_scale";
}

}  // namespace

DistillRun::DistillRun(Distiller& distiller, RunSequence& runs, Options options)
    : distiller_(distiller), runs_(runs), options_(std::move(options)) {
  const io::Json settings = distiller_.options().settings.to_json();
  for (const auto& [name, value] : settings.items()) {
    if (!changes_nothing(name)) inputs_.set(name, value);
  }
  inputs_.set("feature_hidden", distiller_.students().config.width());
  inputs_.set("feature_layers", distiller_.students().config.layers);
  inputs_.set("schedule", distiller_.options().schedule == LayerSchedule::random ? "random" : "round-robin");
  inputs_.set("seed", distiller_.options().seed);
  const SamplingPlan& plan = runs_.plan();
  inputs_.set_texts("prompts", plan.prompts);
  inputs_.set_texts("negative", {plan.negative});
  inputs_.set("size", plan.sizes);
  inputs_.set("sampling-steps", plan.steps);
  inputs_.set("cfg", *plan.cfg);
  inputs_.set("guidance", *plan.guidance);
  if (plan.seed != distiller_.options().seed) inputs_.set("picture-seed", plan.seed);
  if (options_.criteria) inputs_.accept_changes({"readiness_threshold", "readiness_min_updates"});
  distiller_.attach(runs_.backbone().attention());
  runs_.set_tap(&distiller_);
}

DistillRun::~DistillRun() {
  runs_.set_tap(nullptr);
  distiller_.detach();
}

void DistillRun::step() {
  runs_.step(distiller_.begin_step(runs_.steps_done(), static_cast<float>(runs_.level())));
  distiller_.end_step();
}

void DistillRun::save(const std::string& path) {
  std::vector<io::TensorData> tensors;
  std::map<std::string, std::string> metadata;
  distiller_.save(tensors, metadata, options_.save_replay);
  metadata["sampler"] = runs_.save(tensors).dump();
  inputs_.write(metadata);
  io::write_safetensors(path, tensors, metadata);
}

void DistillRun::load(const std::string& path) {
  const io::SafetensorsFile file(path);
  const std::string sampler = metadata_of(file, "sampler");
  if (sampler.empty())
    throw Error(ErrorCode::format, path + ": no checkpoint of vkflux distill (no \"sampler\" metadata)");
  const io::Json state = io::parse_json(sampler, path);
  const std::vector<std::string> changed = [&] {
    const ErrorContext context(path);
    return inputs_.check(file);
  }();
  distiller_.load(path, {changed.begin(), changed.end()});
  const ErrorContext context(path);
  runs_.load(file, state);
  if (options_.criteria) distiller_.reset_criteria(*options_.criteria);
}

}  // namespace vkflux
