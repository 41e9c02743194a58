// A memory plan as people and programs read it.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "model/pipeline.h"

namespace vkflux::cli {

nlohmann::ordered_json plan_json(const MemoryPlan& plan, const std::vector<ModelPart>& parts);
/// Lines without the last line's end.
std::string plan_text(const MemoryPlan& plan, const std::vector<ModelPart>& parts);

/// Plans for the request with `reserve` bytes for other things, and says the plan before anything is loaded.
void hold_to_plan(Pipeline& pipeline, const GenerateRequest& request, uint64_t reserve = 0);

}  // namespace vkflux::cli
