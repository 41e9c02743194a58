// From prompts to what FLUX.2's transformer reads of them: the prompt within its template, the tokens padded
// to one length, the hidden states of some layers side by side.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "model/text/decoder.h"
#include "model/text/tokenizer.h"

namespace vkflux {

/// What stands before and after a prompt, and how it is padded.
struct PromptTemplate {
  std::string before, after;      // their special tokens are parsed as such, always
  std::vector<std::string> drop;  // removed from the prompt first
  bool pad_left = false;
  bool special_in_prompt = true;  // special tokens that the prompt names become their ids
};
/// "<s>[SYSTEM_PROMPT]...[/SYSTEM_PROMPT][INST]" and "[/INST]", padded on the left.
const PromptTemplate& mistral_template();
/// One message of the user's, thinking switched off, padded on the right.
const PromptTemplate& qwen3_template();

/// Hidden states that FLUX.2 dev (10, 20, 30) and klein (9, 18, 27) read.
const std::vector<int64_t>& mistral_states();
const std::vector<int64_t>& qwen3_states();

/// `length` ids for each prompt, cut on the right where they are too many, and the mask.
DecoderTokens prompt_tokens(const Tokenizer& tokenizer, const PromptTemplate& around,
                            const std::vector<std::string>& prompts, int length);
/// How many ids of prompt a length leaves.
size_t prompt_room(const Tokenizer& tokenizer, const PromptTemplate& around, int length);

/// -> [B, T, states C], token by token the states one after the other. With padding on the left, of which
/// every row is the same, only the tokens that are there and one row of padding are computed.
Tensor encode_prompts(const DecoderLm& model, const DecoderTokens& tokens, const std::vector<int64_t>& states,
                      Trace* trace = nullptr);

}  // namespace vkflux
