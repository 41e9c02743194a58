// diffusers' scheduler_config.json: which sampler a model draws with, and on which noise levels.
#pragma once

#include "model/io/json.h"
#include "model/sampler/schedule.h"
#include "model/sampler/solver.h"

namespace vkflux {

struct SchedulerConfig {
  Schedule schedule;
  SolverOptions solver;

  /// Of the classes FlowMatchEulerDiscreteScheduler, FlowMatchHeunDiscreteScheduler, FlowMatchLCMScheduler,
  /// DPMSolverMultistepScheduler and UniPCMultistepScheduler, as diffusers' FluxPipeline uses them. Every
  /// field is honoured, or refused by its name: error unsupported for what isn't implemented, format for what
  /// can't be. Fields that the class doesn't know are said in a warning.
  static SchedulerConfig from_json(const io::Json& json);
};

}  // namespace vkflux
