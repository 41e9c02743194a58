#include "train/distill/distill_run.h"

#include <utility>

#include "model/io/json.h"
#include "train/checkpoint.h"
#include "vk/error.h"

namespace vkflux {

DistillRun::DistillRun(Distiller& distiller, RunSequence& runs, Options options)
    : distiller_(distiller), runs_(runs), options_(std::move(options)) {
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
  metadata["sampler"] = io::json_text(runs_.save(tensors));
  io::write_safetensors(path, tensors, metadata);
}

void DistillRun::load(const std::string& path) {
  const io::SafetensorsFile file(path);
  const std::string sampler = metadata_of(file, "sampler");
  if (sampler.empty())
    throw Error(ErrorCode::format, path + ": no checkpoint of vkflux distill (no \"sampler\" metadata)");
  const io::Json state = io::parse_json(sampler, path);
  distiller_.load(path, options_.mine);
  const ErrorContext context(path);
  runs_.load(file, state);
  if (options_.criteria) distiller_.reset_criteria(*options_.criteria);
}

}  // namespace vkflux
