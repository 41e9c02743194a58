// The contents of a SentencePiece unigram model, read from a spiece.model (protobuf) or a tokenizer.json,
// checked, and written as a protobuf of our own making: the SentencePiece library trusts what it is given (it
// walks the character map's trie without bounds), so it only ever sees what passed here.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace vkflux {

struct UnigramModel {
  enum Type : uint32_t { normal = 1, unknown = 2, control = 3, user_defined = 4, unused = 5, byte = 6 };
  struct Piece {
    std::string text;
    float score = 0;
    uint32_t type = normal;
  };
  std::vector<Piece> pieces;             // the index is the id
  std::map<std::string, int32_t> added;  // special tokens behind the pieces ("<extra_id_0>"), with their ids
  std::string charsmap;                  // precompiled normalisation map; empty for none
  std::string pad = "<pad>", end = "</s>";
  bool add_dummy_prefix = true, remove_extra_whitespaces = true, escape_whitespaces = true;

  /// Error format when a piece is empty, doubled, not UTF-8 or has no finite score, when there isn't exactly
  /// one unknown piece, when the character map points outside of itself, or an added token's id can't be.
  void check() const;
  /// T5's published model of 32000 pieces has the special tokens <extra_id_99> to <extra_id_0> behind them,
  /// also where no file beside it says so. Adds nothing to other models, or where some are.
  void add_published_extra_ids();
  /// Serialised ModelProto.
  std::string to_proto() const;
};

/// Error format unless `bytes` is a SentencePiece ModelProto of the unigram kind that passes check().
UnigramModel parse_sentencepiece(std::string_view bytes);

/// Error format unless `text` is a tokenizer.json with a Unigram model that passes check().
UnigramModel parse_unigram_json(std::string_view text);

/// What the tokenizer_config.json beside a model adds to it: special tokens with their ids, or their number
/// ("extra_ids"). An empty text adds nothing. Error format.
void add_configured_tokens(std::string_view config, UnigramModel& model);

}  // namespace vkflux
