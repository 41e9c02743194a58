// The tokenizers of a FLUX.1 model, and how many ids its encoders take.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "model/family.h"
#include "model/text/tokenizer.h"

namespace vkflux {

struct Flux1Tokenizers {
  std::unique_ptr<Tokenizer> clip, t5;
};
/// From the model's own files, else from where other programs keep them: the folders beside, T5's own file
/// (a tensor "spiece_model", GGUF metadata), the user's data folder, the Hugging Face cache. `remark` may be
/// empty; it gets where one was found that isn't the model's own. Error io names the commands that bring one.
Flux1Tokenizers load_flux1_tokenizers(const ModelFiles& files,
                                      const std::function<void(const std::string&)>& remark);
/// Tokens of T5: `wanted` unless it is 0, else those of model_index.json's "vkflux", else 512 or, without
/// distilled guidance, 256, and no more than tokenizer_2 allows. Error format, or invalid_argument for what
/// is wanted.
int64_t flux1_text_tokens(const ModelFiles& files, bool guidance, int64_t wanted);
/// For the family's row.
std::vector<PromptTokenizer> flux1_prompt_tokenizers(const ModelFiles& files, const ModelOptions& options);

}  // namespace vkflux
