// FLUX.1 as LoRA files see it.
#pragma once

#include "model/flux/transformer.h"
#include "model/lora/modules.h"
#include "model/text/clip.h"
#include "model/text/t5.h"

namespace vkflux {

/// The transformer and both text encoders, with the names that the dialects have for them. Shapes and names
/// alone: nothing is allocated.
std::vector<lora::Component> flux1_lora_components(const Flux1Config& transformer, const ClipTextConfig& clip,
                                                   const T5Config& t5);

}  // namespace vkflux
