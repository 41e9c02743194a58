#include "model/text/tokenizer_byte_bpe.h"

#include <fmt/format.h>
#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <queue>
#include <set>

#include "model/io/file.h"
#include "model/text/tokenizer.h"
#include "vk/error.h"

namespace vkflux {
namespace {

constexpr int64_t kMaxId = 10'000'000;
constexpr size_t kMaxTokenBytes = 4096;

std::string in_alphabet(std::string_view bytes) {
  std::string out;
  for (const char c : bytes) out += byte_alphabet()[static_cast<uint8_t>(c)];
  return out;
}

/// White space as the Unicode property has it, and the characters of words.
constexpr std::string_view kSpace = R"(\t-\r\x{85}\p{Z})", kWord = R"(\p{L}\p{M}\p{N}\p{Pc})";

/// The same pattern for PCRE2, whose \s and \w are others than those of the engines that tokenizers use.
std::string for_pcre(std::string_view pattern) {
  std::string out;
  bool inside = false;  // of [...]
  for (size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i];
    if (c == '\\' && i + 1 < pattern.size()) {
      const char next = pattern[++i];
      const std::string_view set = next == 's' || next == 'S'   ? kSpace
                                   : next == 'w' || next == 'W' ? kWord
                                                                : "";
      const bool negative = next == 'S' || next == 'W';
      if (set.empty()) {
        out += {c, next};
      } else if (!inside) {
        out += fmt::format("[{}{}]", negative ? "^" : "", set);
      } else if (!negative) {
        out += set;
      } else {
        out += {c, next};
      }
      continue;
    }
    if (c == '[' && !inside) {
      inside = true;
    } else if (c == ']' && inside) {
      inside = false;
    }
    out += c;
  }
  return out;
}

/// Pieces and what lies between them, in order.
std::vector<std::string_view> all_pieces(const PieceSplitter& splitter, std::string_view text) {
  std::vector<std::string_view> out;
  size_t at = 0;
  for (const std::string_view piece : splitter.split(text)) {
    const auto from = static_cast<size_t>(piece.data() - text.data());
    if (from > at) out.push_back(text.substr(at, from - at));
    out.push_back(piece);
    at = from + piece.size();
  }
  if (at < text.size()) out.push_back(text.substr(at));
  return out;
}

/// White space by its Unicode property.
bool is_white(char32_t c) {
  if ((c >= 0x09 && c <= 0x0D) || c == 0x85) return true;
  const utf8proc_category_t k = utf8proc_category(static_cast<utf8proc_int32_t>(c));
  return k == UTF8PROC_CATEGORY_ZS || k == UTF8PROC_CATEGORY_ZL || k == UTF8PROC_CATEGORY_ZP;
}

struct Merge {
  int64_t rank;
  uint32_t merged;
};

/// Merges one pair at a time: the lowest rank, of equal ones the leftmost. What a merge makes takes part at
/// once. `find(left, right)` gives a Merge or nothing.
template <class Find>
void merge_pairs(std::vector<uint32_t>& symbols, Find find) {
  struct Candidate {
    int64_t rank;
    size_t at;
    uint32_t left, right, merged;
    bool operator<(const Candidate& o) const { return rank != o.rank ? rank > o.rank : at > o.at; }
  };
  const size_t n = symbols.size();
  std::vector<size_t> next(n), previous(n);
  std::vector<char> alive(n, 1);
  std::priority_queue<Candidate> queue;
  const auto offer = [&](size_t at) {
    if (at >= n || next[at] >= n) return;
    const uint32_t left = symbols[at], right = symbols[next[at]];
    if (const std::optional<Merge> m = find(left, right)) queue.push({m->rank, at, left, right, m->merged});
  };
  for (size_t i = 0; i < n; ++i) next[i] = i + 1, previous[i] = i - 1;  // the first's wraps beyond n
  for (size_t i = 0; i < n; ++i) offer(i);
  while (!queue.empty()) {
    const Candidate c = queue.top();
    queue.pop();
    if (!alive[c.at] || symbols[c.at] != c.left || next[c.at] >= n || symbols[next[c.at]] != c.right)
      continue;
    const size_t gone = next[c.at];
    symbols[c.at] = c.merged;
    alive[gone] = 0;
    next[c.at] = next[gone];
    if (next[gone] < n) previous[next[gone]] = c.at;
    offer(previous[c.at]);
    offer(c.at);
  }
  size_t kept = 0;
  for (size_t i = 0; i < n; i = next[i]) symbols[kept++] = symbols[i];
  symbols.resize(kept);
}

bool is_word(char32_t c) {
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
      return true;
    default:
      return false;
  }
}

/// Where the last character before `at` begins.
size_t before(std::string_view text, size_t at) {
  do --at;
  while (at > 0 && (static_cast<uint8_t>(text[at]) & 0xC0) == 0x80);
  return at;
}

char32_t character_at(std::string_view text, size_t at, size_t& size) {
  utf8proc_int32_t c = 0;
  const auto n = utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data() + at),
                                  static_cast<utf8proc_ssize_t>(text.size() - at), &c);
  size = n > 0 ? static_cast<size_t>(n) : 1;
  return n > 0 ? static_cast<char32_t>(c) : U'\uFFFD';
}

/// Marks that Unicode 9 doesn't have. The reference's normaliser knows that version: these neither move nor
/// compose, and nothing passes them.
bool is_later_mark(char32_t c) {
  constexpr std::array<std::pair<char32_t, char32_t>, 38> kRanges{
      {{0x7FD, 0x7FD},     {0x898, 0x89F},     {0x8CA, 0x8D3},     {0x9FE, 0x9FE},     {0xC3C, 0xC3C},
       {0xD3B, 0xD3C},     {0xEBA, 0xEBA},     {0x1715, 0x1715},   {0x1ABF, 0x1ACE},   {0x1DF6, 0x1DFA},
       {0xA82C, 0xA82C},   {0x10D24, 0x10D27}, {0x10EAB, 0x10EAC}, {0x10EFD, 0x10EFF}, {0x10F46, 0x10F50},
       {0x10F82, 0x10F85}, {0x11070, 0x11070}, {0x1133B, 0x1133B}, {0x1145E, 0x1145E}, {0x11839, 0x1183A},
       {0x11930, 0x11930}, {0x11938, 0x11938}, {0x1193D, 0x1193E}, {0x11943, 0x11943}, {0x119E0, 0x119E0},
       {0x11A34, 0x11A34}, {0x11A47, 0x11A47}, {0x11A99, 0x11A99}, {0x11D42, 0x11D42}, {0x11D44, 0x11D45},
       {0x11D97, 0x11D97}, {0x11F41, 0x11F42}, {0x16FF0, 0x16FF1}, {0x1E08F, 0x1E08F}, {0x1E130, 0x1E136},
       {0x1E2AE, 0x1E2AE}, {0x1E2EC, 0x1E2EF}, {0x1E4EC, 0x1E4EF}}};
  return c >= kRanges.front().first && std::any_of(kRanges.begin(), kRanges.end(), [&](const auto& r) {
           return c >= r.first && c <= r.second;
         });
}

std::string in_form(std::string_view text, ByteBpeModel::Form form) {
  using Form = ByteBpeModel::Form;
  if (form == Form::none) return std::string(text);
  int options = UTF8PROC_STABLE;
  options |= form == Form::nfc || form == Form::nfkc ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE;
  if (form == Form::nfkc || form == Form::nfkd) options |= UTF8PROC_COMPAT;
  utf8proc_uint8_t* out = nullptr;
  const auto size =
      utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                   static_cast<utf8proc_ssize_t>(text.size()), &out, static_cast<utf8proc_option_t>(options));
  if (size < 0)
    throw Error(ErrorCode::invalid_argument, fmt::format("the text isn't UTF-8: {}", utf8proc_errmsg(size)));
  const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owner(out, &std::free);
  return {reinterpret_cast<const char*>(out), static_cast<size_t>(size)};
}

std::string composed(std::string_view text, ByteBpeModel::Form form) {
  std::string out;
  size_t from = 0, n = 0;
  for (size_t at = 0; at < text.size(); at += n) {
    if (!is_later_mark(character_at(text, at, n))) continue;
    out += in_form(text.substr(from, at - from), form);
    out += text.substr(at, n);
    from = at + n;
  }
  return out + in_form(text.substr(from), form);
}

}  // namespace

const std::string_view kQwenPattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
const std::string_view kTekkenPattern =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
const std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

ByteBpe::ByteBpe(ByteBpeModel model) : model_(std::move(model)) {
  const auto add = [&](const std::string& text, int64_t id) {
    if (text.empty() || text.size() > kMaxTokenBytes || id < 0 || id >= kMaxId)
      throw Error(
          ErrorCode::format,
          fmt::format(
              "vocabulary: a token of {} bytes with id {}; expected 1 to {} bytes and an id from 0 to {}",
              text.size(), id, kMaxTokenBytes, kMaxId - 1));
    size_ = std::max(size_, static_cast<int32_t>(id) + 1);
    const auto [at, fresh] = texts_.try_emplace(static_cast<int32_t>(id), text);
    if (!fresh && at->second != text)
      throw Error(ErrorCode::format, fmt::format("vocabulary: id {} is \"{}\" and \"{}\"", id,
                                                 io::shown(at->second), io::shown(text)));
  };
  for (const auto& [text, id] : model_.tokens) {
    add(text, id);
    if (!ids_.emplace(text, static_cast<int32_t>(id)).second)
      throw Error(ErrorCode::format, fmt::format("vocabulary: \"{}\" comes twice", io::shown(text)));
  }
  for (size_t i = 0; i < model_.added.size(); ++i) {
    const ByteBpeModel::Added& token = model_.added[i];
    add(token.text, token.id);
    const auto same = ids_.find(token.text);
    if (same != ids_.end() && same->second != token.id)
      throw Error(ErrorCode::format, fmt::format("vocabulary: the added token \"{}\" has id {} and {}",
                                                 io::shown(token.text), token.id, same->second));
    added_[token.text] = i;
  }
  if (ids_.empty()) throw Error(ErrorCode::format, "vocabulary: it has no tokens");
  for (size_t b = 0; b < 256; ++b) {
    const auto found = ids_.find(byte_alphabet()[b]);
    byte_[b] = found == ids_.end() ? -1 : found->second;
    if (model_.ranked && byte_[b] < 0)
      throw Error(ErrorCode::format, fmt::format("vocabulary: the byte {} isn't in it", b));
  }
  for (size_t rank = 0; rank < model_.merges.size(); ++rank) {
    const auto& [left, right] = model_.merges[rank];
    const auto symbol = [&](const std::string& text) {
      const auto found = ids_.find(text);
      if (found == ids_.end())
        throw Error(ErrorCode::format,
                    fmt::format("merge {}: \"{}\" isn't in the vocabulary", rank, io::shown(text)));
      return static_cast<uint32_t>(found->second);
    };
    merges_.add(symbol(left), symbol(right), symbol(left + right));
  }
  for (const auto* around : {&model_.before, &model_.after}) {
    for (const int64_t id : *around) {
      if (id < 0 || id >= size_)
        throw Error(ErrorCode::format,
                    fmt::format("vocabulary: the id {} that stands around texts isn't in it", id));
    }
  }
  if (model_.unknown && (*model_.unknown < 0 || *model_.unknown >= size_))
    throw Error(ErrorCode::format,
                fmt::format("vocabulary: the unknown token's id {} isn't in it", *model_.unknown));
  for (const ByteBpeModel::Step& step : model_.steps)
    splitters_.push_back(step.pattern.empty() ? std::optional<PieceSplitter>()
                                              : PieceSplitter({}, for_pcre(step.pattern)));
  for (const auto& [text, i] : added_) lengths_[static_cast<uint8_t>(text.front())].insert(text.size());
}

std::string ByteBpe::piece(int32_t id) const {
  const auto found = texts_.find(id);
  return found == texts_.end() ? std::string() : found->second;
}

std::optional<int32_t> ByteBpe::find(std::string_view text) const {
  if (const auto added = added_.find(text); added != added_.end())
    return static_cast<int32_t>(model_.added[added->second].id);
  const auto found = ids_.find(std::string(text));
  return found == ids_.end() ? std::nullopt : std::optional(found->second);
}

const ByteBpeModel::Added* ByteBpe::added_at(std::string_view text, size_t at, bool normalized) const {
  for (const size_t n : lengths_[static_cast<uint8_t>(text[at])]) {
    if (n > text.size() - at) continue;
    const auto found = added_.find(text.substr(at, n));
    if (found != added_.end() && model_.added[found->second].normalized == normalized)
      return &model_.added[found->second];
  }
  return nullptr;
}

// From left to right the longest first, with the white space that tokens take along.
template <class Ordinary>
void ByteBpe::cut(std::string_view text, bool normalized, std::vector<int32_t>& out,
                  Ordinary ordinary) const {
  size_t done = 0;
  for (size_t at = 0; at < text.size();) {
    const ByteBpeModel::Added* token = added_at(text, at, normalized);
    if (!token) {
      ++at;
      continue;
    }
    size_t from = at, to = at + token->text.size(), n = 0;
    at = to;
    if (token->single_word && ((from > 0 && is_word(character_at(text, before(text, from), n))) ||
                               (to < text.size() && is_word(character_at(text, to, n)))))
      continue;
    while (token->left && from > done && is_white(character_at(text, before(text, from), n)))
      from = before(text, from);
    while (token->right && to < text.size() && is_white(character_at(text, to, n))) to += n;
    if (from > done) ordinary(text.substr(done, from - done));
    out.push_back(static_cast<int32_t>(token->id));
    at = done = to;
  }
  if (done < text.size()) ordinary(text.substr(done));
}

void ByteBpe::append_piece(std::string_view piece, std::vector<int32_t>& out) const {
  if (model_.whole_first) {
    if (const auto whole = ids_.find(in_alphabet(piece)); whole != ids_.end())
      return out.push_back(whole->second);
  }
  std::vector<uint32_t> symbols;
  bool unknown = false;  // the last one is
  for (const char c : piece) {
    const int64_t id = byte_[static_cast<uint8_t>(c)];
    if (id < 0 && !model_.unknown) continue;
    if (id < 0 && unknown && model_.fuse_unknown) continue;
    unknown = id < 0;
    symbols.push_back(static_cast<uint32_t>(unknown ? *model_.unknown : id));
  }
  if (model_.ranked) {
    merge_pairs(symbols, [&](uint32_t left, uint32_t right) -> std::optional<Merge> {
      const auto found =
          ids_.find(texts_.at(static_cast<int32_t>(left)) + texts_.at(static_cast<int32_t>(right)));
      if (found == ids_.end()) return {};
      return Merge{found->second, static_cast<uint32_t>(found->second)};
    });
  } else {
    merge_pairs(symbols, [&](uint32_t left, uint32_t right) -> std::optional<Merge> {
      const BpeMerges::Merge* m = merges_.find(left, right);
      return m ? std::optional(Merge{m->rank, m->merged}) : std::nullopt;
    });
  }
  for (const uint32_t s : symbols) out.push_back(static_cast<int32_t>(s));
}

std::vector<std::string> ByteBpe::cut_pieces(std::string_view text) const {
  std::vector<std::string> pieces{std::string(text)};
  for (size_t i = 0; i < splitters_.size(); ++i) {
    std::vector<std::string> next;
    for (std::string& piece : pieces) {
      if (model_.steps[i].prefix_space && !piece.starts_with(' ')) piece.insert(piece.begin(), ' ');
      if (!splitters_[i]) {
        next.push_back(std::move(piece));
      } else {
        for (const std::string_view p : all_pieces(*splitters_[i], piece)) next.emplace_back(p);
      }
    }
    pieces = std::move(next);
  }
  return pieces;
}

std::vector<std::string> ByteBpe::pieces(std::string_view text) const {
  std::string whole(text);
  for (const ByteBpeModel::Form form : model_.forms) whole = composed(whole, form);
  return cut_pieces(whole);
}

std::vector<int32_t> ByteBpe::ids(const std::vector<TextPart>& parts) const {
  size_t size = 0;
  for (const TextPart& p : parts) size += p.text.size();
  if (size > 2 * Tokenizer::kMaxTextBytes)
    throw Error(ErrorCode::invalid_argument,
                fmt::format("text of {} bytes; a prompt has at most {}", size, Tokenizer::kMaxTextBytes));
  std::vector<int32_t> out;
  std::string run;  // what isn't cut, across parts
  bool all = true;  // of it may name tokens
  const auto flush = [&] {
    std::string text(run);
    run.clear();
    for (const ByteBpeModel::Form form : model_.forms) text = composed(text, form);
    const auto append = [&](std::string_view t) {
      for (const std::string& piece : cut_pieces(t)) append_piece(piece, out);
    };
    if (all) {
      cut(text, true, out, append);
    } else {
      append(text);
    }
    all = true;
  };
  for (const TextPart& p : parts) {
    if (!p.special) {
      run += p.text;
      all = false;
      continue;
    }
    std::vector<int32_t> tokens;
    cut(p.text, false, tokens, [&](std::string_view t) {
      if (!tokens.empty()) flush();
      out.insert(out.end(), tokens.begin(), tokens.end());
      tokens.clear();
      run += t;
    });
    if (tokens.empty()) continue;
    flush();
    out.insert(out.end(), tokens.begin(), tokens.end());
  }
  flush();
  return out;
}

std::vector<int32_t> ByteBpe::ids(std::string_view text, bool special) const {
  return ids(std::vector<TextPart>{{text, special}});
}

}  // namespace vkflux
