// Trains the tokenizer of a small FLUX.2 klein on its captions: byte-level BPE of Qwen's kind, with the chat
// template that the pipeline applies. A function of its arguments: the same captions give the same files.
#pragma once

#include <filesystem>
#include <vector>

#include "model/text/tokenizer_byte_bpe.h"
#include "train/data/tokenizer_training.h"

namespace vkflux {

/// `vocab_size` ids in all: 256 bytes, merges by falling frequency, then <|endoftext|>, <|im_start|>,
/// <|im_end|>, <think> and </think>. Fewer when the texts have no more pairs. The words of the chat template
/// are tokens whatever the texts are. ErrorCode::invalid_argument below 300.
ByteBpeModel train_chat_bpe(const std::vector<TrainingText>& texts, int vocab_size);

/// tokenizer.json, vocab.json, merges.txt, tokenizer_config.json and chat_template.jinja, as transformers'
/// Qwen2TokenizerFast reads them.
void write_chat_tokenizer(const std::filesystem::path& folder, const ByteBpeModel& model, int max_length);
/// Whether FOLDER/tokenizer is such a tokenizer.
bool has_chat_tokenizer(const std::filesystem::path& folder);

}  // namespace vkflux
