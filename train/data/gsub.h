// The part of OpenType's GSUB table that turns an emoji sequence into one glyph: ligature substitution
// (lookup type 4, also through extension type 7), as specified by ISO/IEC 14496-22 section 6.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <vector>

namespace vkflux {

class Ligatures {
 public:
  /// Reads every ligature lookup, in lookup order. ErrorCode::format when an offset or a count leaves the
  /// table.
  static Ligatures parse(std::span<const uint8_t> gsub);

  /// The one glyph that the whole sequence becomes when the lookups are applied one after the other, each
  /// from left to right preferring the order of the font; nothing when more than one glyph remains.
  std::optional<uint32_t> substitute(std::vector<uint32_t> glyphs) const;

 private:
  struct Rule {
    std::vector<uint16_t> rest;  // the components after the first
    uint16_t ligature = 0;
  };
  using Lookup = std::map<uint16_t, std::vector<Rule>>;  // first glyph to its rules
  class Parser;

  std::vector<Lookup> lookups_;
};

}  // namespace vkflux
