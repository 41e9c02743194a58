// What a picture takes on the device, and how a model has to be held so that it fits: found out before
// anything is loaded, by going through the same work without a device (vk/rehearsal.h).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "model/generate_job.h"

namespace vkflux {

enum class PlanPhase { encode, encode_picture, denoise, decode };
inline constexpr size_t kPlanPhases = 4;
const char* name(PlanPhase phase);

/// The most bytes of a phase: in use, and in the blocks that hold them, which the budget limits.
struct PhasePeak {
  PlanPhase phase = PlanPhase::encode;
  uint64_t used = 0, reserved = 0;
};

struct MemoryPlan {
  uint64_t budget = 0;
  bool fits = false;
  std::string problem;  // of one that doesn't: what is missing where
  Residency residency;
  std::vector<PhasePeak> phases;  // in order; of one that doesn't fit, as far as it came
  uint64_t reserved(PlanPhase phase) const;
  uint64_t used() const;  // the most of all phases
  uint64_t reserved() const;
};

struct PlanWish {
  uint64_t budget = 0;  // bytes of device memory in all
  uint64_t others = 0;  // of them: what isn't the model's, students say
  TilingWish tiling = TilingWish::when_needed;
  Tiling tile;  // for always, and when needed; 0: the largest that fits
};

/// "7.5 GiB", "300 MiB"
std::string bytes_text(uint64_t bytes);

/// The peaks of the request with the model held like that; nothing of the model is changed. `until`: the last
/// phase that matters.
MemoryPlan rehearse(Device& device, Model& model, const GenerateRequest& request, const Residency& residency,
                    const PlanWish& wish, PlanPhase until = PlanPhase::decode);

/// The way of holding that loads and streams least within the budget. One that doesn't fit has everything
/// streamed and tiled, and says what is missing.
MemoryPlan make_plan(Device& device, Model& model, const GenerateRequest& request, const PlanWish& wish);

}  // namespace vkflux
