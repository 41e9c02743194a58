// Byte-level BPE as Qwen and Mistral (tekken) use it: texts are cut at special tokens, then by patterns, and
// the bytes of each piece are merged. What is read is what tokenizer.json of the `tokenizers` library says.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "model/io/json.h"
#include "model/text/tokenizer_bpe.h"

namespace vkflux {

/// The split patterns of Qwen2 and Qwen3, of tekken, and of GPT-2.
extern const std::string_view kQwenPattern, kTekkenPattern, kGpt2Pattern;

/// What the files say, not yet checked for consistency.
struct ByteBpeModel {
  /// A token that is found in texts as a whole.
  struct Added {
    std::string text;
    int64_t id = 0;
    bool normalized = false;           // looked for in the normalised text
    bool left = false, right = false;  // takes the white space beside it along
    bool single_word = false;          // only where no letter or digit touches it
  };
  enum class Form { none, nfc, nfd, nfkc, nfkd };

  /// A text's piece gets a space in front where it has none, and is cut by the pattern (empty: not).
  struct Step {
    bool prefix_space = false;
    std::string pattern;
  };

  std::vector<std::pair<std::string, int64_t>> tokens;      // in the byte alphabet, id
  std::vector<std::pair<std::string, std::string>> merges;  // the same, by rank
  bool ranked = false;  // without merges: two tokens merge where what they make is one; smallest id first
  std::vector<Added> added;
  std::vector<Form> forms;  // normalisation, in order
  std::vector<Step> steps;
  bool whole_first = false;        // a piece that is a token isn't merged ("ignore_merges")
  std::optional<int64_t> unknown;  // of bytes that aren't in the vocabulary; none: they vanish
  bool fuse_unknown = false;
  std::vector<int64_t> before, after;  // what an encoding adds around a text, unless that begins with `start`
  std::string pad, start, end;         // tokens by their text; empty: none
  std::string chat_template;           // Jinja; empty: none
  std::optional<bool> pad_left, cut_left;
};

/// From the text of a tokenizer.json, and of the tokenizer_config.json beside it or an empty string. Error
/// format, or unsupported naming what isn't computed.
ByteBpeModel parse_byte_bpe_json(std::string_view text, std::string_view config);
/// From vocab.json and merges.txt, with Qwen's pattern; `added` is added_tokens.json or empty.
ByteBpeModel parse_byte_bpe_files(std::string_view vocab, std::string_view merges, std::string_view added,
                                  std::string_view config);
/// From a tekken.json.
ByteBpeModel parse_tekken(std::string_view text, const std::string& origin);
/// From a GGUF file's metadata: tokenizer.ggml.model "gpt2", tokenizer.ggml.pre "qwen2" or "tekken".
ByteBpeModel parse_gguf_byte_bpe(const io::Json& values);
bool has_gguf_byte_bpe(const io::Json& values);

/// A part of a text; special: what it names of the added tokens becomes their ids.
struct TextPart {
  std::string_view text;
  bool special = true;
};

class ByteBpe {
 public:
  /// Error format when ids are negative, huge or used twice, or a merge isn't in the vocabulary.
  explicit ByteBpe(ByteBpeModel model);

  /// Ids of a text, or of one in parts that are merged as if they were one. ErrorCode::invalid_argument when
  /// it isn't UTF-8 or too long.
  std::vector<int32_t> ids(std::string_view text, bool special = true) const;
  std::vector<int32_t> ids(const std::vector<TextPart>& parts) const;
  /// What is merged by itself of a text without added tokens: normalised, then cut by the patterns.
  std::vector<std::string> pieces(std::string_view text) const;
  /// A token's text, in the byte alphabet unless it is an added one; empty for ids that there aren't.
  std::string piece(int32_t id) const;
  /// Of a token by its text, added ones first.
  std::optional<int32_t> find(std::string_view text) const;
  int32_t vocab_size() const { return size_; }
  const ByteBpeModel& model() const { return model_; }

 private:
  std::vector<std::string> cut_pieces(std::string_view text) const;
  void append_piece(std::string_view piece, std::vector<int32_t>& out) const;
  const ByteBpeModel::Added* added_at(std::string_view text, size_t at, bool normalized) const;
  template <class Ordinary>
  void cut(std::string_view text, bool normalized, std::vector<int32_t>& out, Ordinary ordinary) const;

  ByteBpeModel model_;
  int32_t size_ = 0;
  std::unordered_map<std::string, int32_t> ids_;
  std::unordered_map<int32_t, std::string> texts_;
  std::array<int64_t, 256> byte_{};  // ids; -1: the vocabulary lacks it
  BpeMerges merges_;
  std::map<std::string, size_t, std::less<>> added_;           // by text: number in model_.added
  std::array<std::set<size_t, std::greater<>>, 256> lengths_;  // of added tokens, by first byte
  std::vector<std::optional<PieceSplitter>> splitters_;
};

/// `path`: a folder with tokenizer.json, with vocab.json and merges.txt, or with tekken.json, or one of these
/// files. Error io when there is none.
std::shared_ptr<const ByteBpe> load_byte_bpe(const std::string& path);
/// Out of a text encoder's own file: GGUF metadata or a U8 tensor "tekken_model", with or without a prefix.
/// Null when it has neither.
std::shared_ptr<const ByteBpe> byte_bpe_of_tensors(const std::string& path);

}  // namespace vkflux
