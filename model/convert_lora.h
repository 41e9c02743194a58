// Weights with LoRAs in them, for files that need none.
#pragma once

#include <memory>
#include <string>

#include "model/convert.h"
#include "model/lora/lora.h"

namespace vkflux {

/// What `base` gives of a part, with the changes added in f32. All outlive it. One parameter at a time is in
/// memory.
std::unique_ptr<WeightSource> merged_weights(const WeightSource& base, const LoraSet& loras,
                                             const std::string& part);

}  // namespace vkflux
