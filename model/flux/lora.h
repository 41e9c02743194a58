// FLUX.1 as LoRA files see it.
#pragma once

#include "model/flux/transformer.h"
#include "model/lora/modules.h"
#include "model/text/clip.h"
#include "model/text/t5.h"

namespace vkflux {

/// One part each, with the names that the dialects have for its modules. Shapes and names alone: nothing is
/// allocated.
lora::Component flux1_lora_component(const Flux1Config& config);
lora::Component clip_lora_component(const ClipTextConfig& config);
lora::Component t5_lora_component(const T5Config& config);
/// The transformer and both text encoders.
std::vector<lora::Component> flux1_lora_components(const Flux1Config& transformer, const ClipTextConfig& clip,
                                                   const T5Config& t5);

}  // namespace vkflux
