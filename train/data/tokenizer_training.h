// Trains the two tokenizers of a small FLUX.1 on its captions: a CLIP-style byte-level BPE and a T5-style
// SentencePiece unigram model. Both are functions of their arguments: the same captions give the same files.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "model/text/tokenizer.h"
#include "model/text/tokenizer_clip.h"
#include "model/text/tokenizer_spiece.h"
#include "train/data/dataset.h"

namespace vkflux {

struct TrainingText {
  std::string text;
  int weight = 1;  // counts as that many occurrences
};

/// `vocab_size` ids in all: 512 byte symbols, merges by falling frequency (ties: the alphabetically first
/// pair), then start and end. Fewer when the texts have no more pairs. ErrorCode::invalid_argument below 515.
ClipVocabulary train_clip_bpe(const std::vector<TrainingText>& texts, int vocab_size);

/// vocab.json, merges.txt, tokenizer_config.json and special_tokens_map.json, as CLIP checkpoints ship them.
void write_clip_tokenizer(const std::filesystem::path& folder, const ClipVocabulary& vocabulary,
                          int max_length);

/// The bytes of a spiece.model of at most `vocab_size` pieces: <pad> 0, </s> 1, <unk> 2, as T5's. Its
/// normaliser lowers the case, drops accents of Latin letters and takes punctuation for spaces, as the
/// captions themselves are.
std::string train_t5_unigram(const std::vector<TrainingText>& texts, int vocab_size);

/// spiece.model, tokenizer_config.json and special_tokens_map.json.
void write_t5_tokenizer(const std::filesystem::path& folder, const std::string& model, int max_length);

/// All captions of a data set, and the colours of recoloured pictures.
std::vector<TrainingText> tokenizer_texts(const Dataset& data);

struct TokenizerSizes {
  int clip_vocab = 2048, t5_vocab = 2048;  // at most; at 2048 every word of a common emoji name is one token
  int clip_length = 16, t5_length = 12;    // encoder lengths noted in the tokenizers' configs
};
/// Trains both and writes FOLDER/tokenizer and FOLDER/tokenizer_2, as a model's folder has them.
/// ErrorCode::invalid_argument when the texts are too poor to train on.
void write_tokenizers(const std::filesystem::path& folder, const std::vector<TrainingText>& texts,
                      const TokenizerSizes& sizes);
/// Whether a folder has both of these folders.
bool has_tokenizers(const std::filesystem::path& folder);
/// Copies both, checked by loading them first.
void copy_tokenizers(const std::filesystem::path& from, const std::filesystem::path& to);

/// Numbers of content ids over some texts (start, end and padding don't count).
struct TokenLengths {
  size_t median = 0, p90 = 0, p99 = 0, max = 0;
};
TokenLengths token_lengths(const Tokenizer& tokenizer, const std::vector<std::string>& texts);

}  // namespace vkflux
