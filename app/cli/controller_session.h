// What training and evaluating a routing controller share: the model with its students, prompts, and the task
// of sampling them.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "app/cli/cli.h"
#include "app/cli/memory_options.h"
#include "app/loras.h"
#include "app/outputs.h"
#include "app/weights.h"
#include "model/attention/hkr/students.h"
#include "model/pipeline.h"
#include "train/controller/sampling_task.h"
#include "train/run_inputs.h"

namespace vkflux {

struct ControllerSessionArgs {
  std::string model, ttr, prompts, negative, size, weights = "f32", reward_on = "latents", noise = "counter";
  ModelFlags parts;
  std::map<std::string, double> reward_weights;  // by name; absent: 1 for rmse and cosine, else 0
  int64_t steps = 0, images = 4, seeds = 4;
  double cfg = -1, guidance = -1;  // negative: the model's
  uint64_t picture_seed = 0;
  LoraArgs loras;
  MemoryArgs memory;

  ControllerSessionArgs();
};

/// Adds --model, --ttr, --prompts, --size, --steps, --cfg, --guidance, --images, --seeds, --picture-seed,
/// --noise, --reward-on, the reward weights, --weights and --vram.
void add_controller_options(CLI::App& command, ControllerSessionArgs& args);

void declare_inputs(const ControllerSessionArgs& args, FileUse& files);

struct ControllerSession {
  std::unique_ptr<Device> device;
  std::unique_ptr<Pipeline> pipeline;
  std::shared_ptr<Backbone> backbone;
  std::shared_ptr<LatentCodec> codec;  // for rewards on images
  std::unique_ptr<QualityLoss> quality;
  std::vector<uint8_t> eligible;  // [layers that may be replaced], 1 = its student is ready
  std::unique_ptr<SamplingTask> task;
  std::vector<std::string> prompts;
  ControllerSessionArgs args;

  /// Settings are checked before anything is loaded. Error invalid_argument when no student is ready.
  ControllerSession(const cli::Common& common, const ControllerSessionArgs& args);
  int64_t eligible_layers() const;
  /// Adds what the pictures and their rewards are made from.
  void describe(RunInputs& inputs) const;
};

}  // namespace vkflux
