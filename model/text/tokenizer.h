// Text to token ids. A tokenizer is read from the files that a checkpoint ships; they are treated as hostile.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace vkflux {

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  /// Content ids alone: no start, end or padding. Special tokens that the text names become their single ids.
  /// ErrorCode::invalid_argument when the text isn't UTF-8 or is longer than kMaxTextBytes.
  virtual std::vector<int32_t> tokenize(std::string_view text) const = 0;

  /// The text of a token in the vocabulary's own writing ("apple</w>", "\u2581apple"); empty for ids that it
  /// hasn't.
  virtual std::string piece(int32_t id) const = 0;

  /// How many ids of content encode() of this length keeps.
  virtual size_t room(int length) const = 0;

  /// Exactly `length` ids, ready for the encoder: content cut where needed so that start and end fit, then
  /// padding.
  virtual std::vector<int32_t> encode(std::string_view text, int length) const = 0;

  virtual int32_t pad_id() const = 0;
  virtual int32_t eos_id() const = 0;
  /// Largest id + 1. The encoder's embedding table needs at least this many rows.
  virtual int32_t vocab_size() const = 0;

  static constexpr size_t kMaxTextBytes = size_t{1} << 18;
};

/// CLIP's byte-level BPE: start, content, end, padding. `path` is a folder with vocab.json and merges.txt or
/// with tokenizer.json, a tokenizer.json itself, or the merges of bpe_simple_vocab_16e6.txt, gzipped or not.
std::unique_ptr<Tokenizer> load_clip_tokenizer(const std::string& path);

/// T5's SentencePiece unigram model: content, end, padding. `path` is a folder with spiece.model or
/// tokenizer.json, or one of these files.
std::unique_ptr<Tokenizer> load_t5_tokenizer(const std::string& path);

/// The same from a model file's bytes, as some checkpoints carry them in a U8 tensor "spiece_model".
std::unique_ptr<Tokenizer> t5_tokenizer_from_bytes(std::span<const std::byte> model,
                                                   const std::string& origin);

}  // namespace vkflux
