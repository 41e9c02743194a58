// The tokenizer and the template of prompts of FLUX.2's text encoders, wherever they are.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "model/part_places.h"
#include "model/text/decoder.h"
#include "model/text/prompt_encoder.h"

namespace vkflux {

/// From the model's own folder or the flag's file, from the text encoder's file, else from the folders of
/// other programs. `remark` hears which of the last two it was. Error io says which command brings one.
std::shared_ptr<const Tokenizer> load_flux2_tokenizer(const ModelFiles& files,
                                                      const std::function<void(const std::string&)>& remark);
/// Qwen3's where queries and keys are normalised, else Mistral's.
const PromptTemplate& flux2_template(const DecoderConfig& config);

}  // namespace vkflux
