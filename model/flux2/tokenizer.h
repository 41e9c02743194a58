// The tokenizer of FLUX.2's text encoders, wherever it is.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "model/part_places.h"
#include "model/text/decoder.h"
#include "model/text/prompt_encoder.h"

namespace vkflux {

/// Qwen3's where queries and keys are normalised, else Mistral's.
PromptKind prompt_kind(const DecoderConfig& config);

/// From the model's own folder or the flag's file, from the text encoder's file, else from the folders of
/// other programs; `remark` hears which of the last two it was. Error io says which command brings one.
std::shared_ptr<const ByteBpe> load_flux2_tokenizer(const ModelFiles& files, PromptKind kind,
                                                    const std::function<void(const std::string&)>& remark);

}  // namespace vkflux
