// What byte-level BPE tokenizers share: Unicode clean-up, splitting by a pattern, the byte alphabet and
// merging.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace vkflux {

/// NFC, runs of white space to one space, trimmed, lower-case (each character by itself).
/// ErrorCode::invalid_argument when the text isn't UTF-8.
std::string normalize_clip_text(std::string_view text);

/// Character by character, as UTF-8.
std::string lower_case(std::string_view text);

/// CLIP's pattern for the pieces of a normalised text, after the special tokens: of white space it has only
/// the space, and nothing in it is upper-case.
inline constexpr std::string_view kClipPattern =
    R"('s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^ \p{L}\p{N}]+)";

/// A stretch of a text, and the id that it stands for as a special token; negative: ordinary text.
struct TextSpan {
  std::string_view text;
  int32_t special = -1;
};
/// Cuts out what is written literally like one of the special tokens: from left to right, the longest first.
std::vector<TextSpan> cut_special_tokens(std::string_view text,
                                         const std::map<std::string, int32_t, std::less<>>& special);

/// All matches of a regular expression (PCRE2, UTF and Unicode properties); what lies between them is
/// dropped. Literal strings may be put before the pattern.
class PieceSplitter {
 public:
  PieceSplitter(const std::vector<std::string>& literals, std::string_view pattern);
  ~PieceSplitter();
  PieceSplitter(PieceSplitter&&) noexcept;
  PieceSplitter& operator=(PieceSplitter&&) noexcept;

  /// Views into `text`, which must be UTF-8.
  std::vector<std::string_view> split(std::string_view text) const;

 private:
  struct Regex;
  std::unique_ptr<Regex> regex_;
};

/// The printable character that stands for each byte: bytes 33..126, 161..172 and 174..255 stand for
/// themselves, the other 68 in ascending order are code points 256, 257, ...
const std::array<std::string, 256>& byte_alphabet();
/// Byte values in the order their characters have in a vocabulary: those that stand for themselves first.
std::array<uint8_t, 256> byte_order();

/// Merges of a BPE model over symbols, which are small integers chosen by the caller.
class BpeMerges {
 public:
  /// Merging `left` and `right` gives `merged`. Ranks ascend with the calls; a repeated pair keeps its first
  /// rank.
  void add(uint32_t left, uint32_t right, uint32_t merged);

  /// Repeatedly merges the adjacent pair of lowest rank, all its occurrences from left to right. O(n log n).
  std::vector<uint32_t> apply(const std::vector<uint32_t>& symbols) const;

  struct Merge {
    uint32_t rank, merged;
  };
  /// Null: the two don't merge.
  const Merge* find(uint32_t left, uint32_t right) const;

 private:
  static uint64_t key(uint32_t left, uint32_t right) { return uint64_t{left} << 32 | right; }

  std::unordered_map<uint64_t, Merge> merges_;
};

}  // namespace vkflux
