// CLIP's byte-level BPE tokenizer, with an end-of-word suffix.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "model/text/tokenizer.h"
#include "model/text/tokenizer_bpe.h"

namespace vkflux {

/// What the files say, not yet checked for consistency.
struct ClipVocabulary {
  std::map<std::string, int64_t> ids;                       // token to id
  std::vector<std::pair<std::string, std::string>> merges;  // by rank
  std::map<std::string, int64_t> special;                   // tokens recognised literally in a text
  std::string start = "<|startoftext|>", end = "<|endoftext|>", pad, unknown;  // empty: the end token
};

/// From vocab.json and merges.txt, and from the side files where there are some (empty strings otherwise):
/// tokenizer_config.json, special_tokens_map.json, added_tokens.json. Error format names the file.
struct ClipFiles {
  std::string vocab, merges, config, special_map, added;
};
ClipVocabulary parse_clip_files(const ClipFiles& files);

/// From the text of a tokenizer.json; `config` is the tokenizer_config.json beside it or empty.
ClipVocabulary parse_clip_json(std::string_view text, std::string_view config);

/// From the text of bpe_simple_vocab_16e6.txt: a line that names it, then merges, of which CLIP has the first
/// 48894; ids follow from their order.
ClipVocabulary parse_clip_merges(std::string_view text);

class ClipTokenizer final : public Tokenizer {
 public:
  /// Error format when ids are negative, huge or used twice, or a merge isn't in the vocabulary.
  explicit ClipTokenizer(const ClipVocabulary& vocabulary);

  std::vector<int32_t> tokenize(std::string_view text) const override;
  /// start, content cut to length - 2, end, padding. `length` is at least 2.
  std::vector<int32_t> encode(std::string_view text, int length) const override;
  std::string piece(int32_t id) const override;
  size_t room(int length) const override { return static_cast<size_t>(std::max(0, length - 2)); }
  int32_t pad_id() const override { return pad_; }
  int32_t eos_id() const override { return end_; }
  int32_t start_id() const { return start_; }
  int32_t vocab_size() const override { return size_; }

 private:
  void add_bytes(std::map<std::string, uint32_t>& symbols);
  void add_merges(const ClipVocabulary& vocabulary, const std::map<std::string, uint32_t>& symbols);
  void append_piece(std::string_view piece, std::vector<int32_t>& ids) const;

  int32_t start_ = 0, end_ = 0, pad_ = 0, unknown_ = 0, size_ = 0;
  std::array<uint32_t, 256> byte_symbol_{}, last_byte_symbol_{};  // inside a piece, and with the suffix
  BpeMerges merges_;                                     // a symbol below size_ is its id, others are unknown
  std::map<std::string, int32_t, std::less<>> special_;  // tokens that are cut out of a text
  std::map<std::string, int32_t, std::less<>> literals_;  // the same in lower case, found among its pieces
  std::map<int32_t, std::string> pieces_;
  PieceSplitter splitter_;
};

}  // namespace vkflux
