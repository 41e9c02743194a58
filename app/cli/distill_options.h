// The flags of `vkflux distill`.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>
#include <vector>

#include "app/cli/memory_options.h"
#include "app/cli/profile.h"
#include "app/loras.h"
#include "app/weights.h"
#include "train/distill/distiller.h"

namespace vkflux::cli {

struct DistillArgs {
  std::string model, prompts_file, negative, out, init, holdout, weights = "f32", export_dtype = "f16",
                                                                 schedule = "round-robin";
  std::vector<std::string> prompts, sizes;
  ProfileArgs profile;
  LoraArgs loras;  // of the teacher
  ModelFlags parts;
  MemoryArgs memory;
  int64_t updates = -1, sampling_steps = 0, replay_max_mb = 768, save_every = 200, stop_after = 0,
          holdout_runs = 8, memory_budget_mb = 0;
  float cfg = -1, guidance = -1;
  uint64_t seed = 0;
  bool fresh = false, accept_changed = false, save_replay = true, reset_criteria = false, quiet = false;
  DistillOptions distill;
  const CLI::App* command = nullptr;
};

/// Adds every flag but those of every command.
void add_distill_options(CLI::App* command, DistillArgs& args);
/// What two flags can't be together: error invalid_argument.
void check(const DistillArgs& args);

}  // namespace vkflux::cli
