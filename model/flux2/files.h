// A FLUX.2 model's files, as diffusers' Flux2Pipeline and Flux2KleinPipeline read them.
#pragma once

#include <memory>

#include "model/family.h"

namespace vkflux {

/// Reads configs, tokenizer and every file's header. Errors: format (missing or contradicting parts),
/// unsupported (what isn't FLUX.2), invalid_argument (hidden states that the text encoder hasn't).
std::unique_ptr<Model> open_flux2(Device& device, const ModelFiles& files, const ModelOptions& options);
/// A transformer and a Qwen3 of these sizes, to be trained; they are saved as Flux2KleinPipeline's.
std::unique_ptr<TrainableModel> create_flux2(const ModelSizes& sizes);

}  // namespace vkflux
