// The tokenizers of a FLUX.1 folder, and how many ids its encoders take.
#pragma once

#include <memory>
#include <string>

#include "model/family.h"
#include "model/text/tokenizer.h"

namespace vkflux {

struct Flux1Tokenizers {
  std::unique_ptr<Tokenizer> clip, t5;
};
/// Both encoders may share one SentencePiece model.
Flux1Tokenizers load_flux1_tokenizers(const std::string& folder);
/// Tokens of T5 where nobody asks for another number: those of model_index.json's "vkflux", else 512 or,
/// without distilled guidance, 256, and no more than tokenizer_2 allows. Error format.
int64_t flux1_text_tokens(const std::string& folder, bool guidance);
/// For the family's row.
std::vector<PromptTokenizer> flux1_prompt_tokenizers(const std::string& folder);

}  // namespace vkflux
