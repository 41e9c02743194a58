#include "train/data/gsub.h"

#include <fmt/format.h>

#include <algorithm>

#include "vk/error.h"

namespace vkflux {

/// Bounds-checked big-endian reads. A budget on the glyphs read stops tables whose offsets all point at one
/// big array.
class Ligatures::Parser {
 public:
  explicit Parser(std::span<const uint8_t> table)
      : table_(table), most_entries_(kEveryGlyph * 4 + 4 * table.size()) {}

  uint16_t u16(size_t at) {
    if (at + 2 > table_.size()) {
      throw Error(ErrorCode::format,
                  fmt::format("GSUB: offset {} lies outside the table of {} bytes", at, table_.size()));
    }
    spend(1);
    return static_cast<uint16_t>(table_[at] << 8 | table_[at + 1]);
  }

  void spend(size_t entries) {
    entries_ += entries;
    if (entries_ > most_entries_) throw Error(ErrorCode::format, "GSUB: more entries than a font can need");
  }

  std::vector<uint16_t> coverage(size_t at) {
    std::vector<uint16_t> glyphs;
    const uint16_t format = u16(at), count = u16(at + 2);
    for (size_t i = 0; i < count; ++i) {
      if (format == 1) {
        glyphs.push_back(u16(at + 4 + 2 * i));
        continue;
      }
      if (format != 2)
        throw Error(ErrorCode::format, fmt::format("GSUB: coverage format {}; expected 1 or 2", format));
      const uint32_t first = u16(at + 4 + 6 * i), last = u16(at + 6 + 6 * i);
      if (last >= first) spend(last - first);
      if (last < first || glyphs.size() + (last - first) > 0xFFFF) {
        throw Error(ErrorCode::format,
                    fmt::format("GSUB: coverage range {}..{} is reversed or overlaps", first, last));
      }
      for (uint32_t glyph = first; glyph <= last; ++glyph) glyphs.push_back(static_cast<uint16_t>(glyph));
    }
    return glyphs;
  }

  Rule rule(size_t at) {
    Rule out{{}, u16(at)};
    const uint16_t components = u16(at + 2);
    for (size_t i = 1; i < components; ++i) out.rest.push_back(u16(at + 2 + 2 * i));
    return out;
  }

  void subtable(size_t at, Lookup& lookup) {
    const auto first_glyphs = coverage(at + u16(at + 2));
    const uint16_t sets = u16(at + 4);
    if (u16(at) != 1 || sets > first_glyphs.size()) {
      throw Error(ErrorCode::format,
                  fmt::format("GSUB: ligature table of format {} with {} sets for {} glyphs", u16(at), sets,
                              first_glyphs.size()));
    }
    for (size_t s = 0; s < sets; ++s) {
      const size_t set = at + u16(at + 6 + 2 * s);
      const uint16_t count = u16(set);
      for (size_t i = 0; i < count; ++i) lookup[first_glyphs[s]].push_back(rule(set + u16(set + 2 + 2 * i)));
    }
  }

  std::vector<Lookup> lookups() {
    std::vector<Lookup> out;
    const size_t list = u16(8);
    const uint16_t count = u16(list);
    for (size_t i = 0; i < count; ++i) {
      const size_t at = list + u16(list + 2 + 2 * i);
      const uint16_t type = u16(at), tables = u16(at + 4);
      Lookup lookup;
      for (size_t t = 0; t < tables; ++t) {
        size_t table = at + u16(at + 6 + 2 * t);
        uint16_t table_type = type;
        if (type == 7) {
          table_type = u16(table + 2);
          table += static_cast<size_t>(u16(table + 4)) << 16 | u16(table + 6);
        }
        if (table_type == 4) subtable(table, lookup);
      }
      if (!lookup.empty()) out.push_back(std::move(lookup));
    }
    return out;
  }

 private:
  static constexpr size_t kEveryGlyph = 65536;
  std::span<const uint8_t> table_;
  size_t most_entries_, entries_ = 0;
};

Ligatures Ligatures::parse(std::span<const uint8_t> gsub) {
  Ligatures out;
  out.lookups_ = Parser(gsub).lookups();
  return out;
}

std::optional<uint32_t> Ligatures::substitute(std::vector<uint32_t> glyphs) const {
  for (const Lookup& lookup : lookups_) {
    for (size_t i = 0; i < glyphs.size(); ++i) {
      if (glyphs[i] > 0xFFFF) continue;
      const auto found = lookup.find(static_cast<uint16_t>(glyphs[i]));
      if (found == lookup.end()) continue;
      for (const Rule& rule : found->second) {
        const size_t n = rule.rest.size();
        if (i + n >= glyphs.size()) continue;
        const auto next = glyphs.begin() + static_cast<std::ptrdiff_t>(i) + 1;
        if (!std::equal(rule.rest.begin(), rule.rest.end(), next)) continue;
        glyphs[i] = rule.ligature;
        glyphs.erase(next, next + static_cast<std::ptrdiff_t>(n));
        break;
      }
    }
  }
  if (glyphs.size() != 1) return std::nullopt;
  return glyphs[0];
}

}  // namespace vkflux
