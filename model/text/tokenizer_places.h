// Where tokenizers lie that a model's files don't bring: beside encoders, in folders of other programs.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "model/text/prompt_encoder.h"
#include "model/text/tokenizer.h"

namespace vkflux {

/// $XDG_DATA_HOME/vkflux, else ~/.local/share/vkflux; scripts put vocabularies there. Empty without a home.
std::string data_folder();
/// Of CLIP's vocabulary in it, as open-clip ships it.
inline constexpr const char* kClipVocabulary = "bpe_simple_vocab_16e6.txt.gz";

/// Files and folders that load_clip_tokenizer() and load_t5_tokenizer() take, those that are there, the best
/// first: below each of `roots` (a model's folder in diffusers' layout, or ComfyUI's comfy/), in the data
/// folder, in the Hugging Face cache.
std::vector<std::string> clip_tokenizer_places(const std::vector<std::string>& roots);
std::vector<std::string> t5_tokenizer_places(const std::vector<std::string>& roots);

/// The same for load_byte_bpe(): folders with tokenizer.json, vocab.json or tekken.json, and tekken.json
/// itself.
std::vector<std::string> chat_tokenizer_places(PromptKind kind, const std::vector<std::string>& roots);

/// The commands that bring one, for errors.
std::string clip_tokenizer_commands();
std::string t5_tokenizer_commands();
std::string chat_tokenizer_commands(PromptKind kind);

/// T5's tokenizer out of the encoder's own file: a U8 tensor named "spiece_model", with or without a prefix,
/// or GGUF metadata. Null when it has neither. Error format when it is damaged.
std::unique_ptr<Tokenizer> t5_tokenizer_of_tensors(const std::string& path);

}  // namespace vkflux
