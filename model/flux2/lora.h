// FLUX.2's transformer as LoRA files see it.
#pragma once

#include "model/flux2/config.h"
#include "model/lora/modules.h"

namespace vkflux {

/// With the names that the dialects have for its modules. Shapes and names alone: nothing is allocated.
lora::Component flux2_lora_component(const Flux2Config& config);

}  // namespace vkflux
