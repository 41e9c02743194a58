// A memory plan as people and programs read it.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "model/plan/plan.h"

namespace vkflux::cli {

nlohmann::ordered_json plan_json(const MemoryPlan& plan, const std::vector<ModelPart>& parts);
/// Lines without the last line's end.
std::string plan_text(const MemoryPlan& plan, const std::vector<ModelPart>& parts);

}  // namespace vkflux::cli
