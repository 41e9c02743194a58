#define PCRE2_CODE_UNIT_WIDTH 8
#include "model/text/tokenizer_bpe.h"

#include <fmt/format.h>
#include <pcre2.h>
#include <utf8proc.h>

#include <algorithm>
#include <cstdlib>
#include <queue>
#include <set>

#include "vk/error.h"

namespace vkflux {
namespace {

void append_utf8(std::string& out, int32_t codepoint) {
  std::array<utf8proc_uint8_t, 4> bytes{};
  const auto n = utf8proc_encode_char(codepoint, bytes.data());
  for (size_t i = 0; i < static_cast<size_t>(n); ++i) out.push_back(static_cast<char>(bytes[i]));
}

[[noreturn]] void not_utf8(std::string_view text, utf8proc_ssize_t error) {
  throw Error(ErrorCode::invalid_argument,
              fmt::format("text of {} bytes isn't valid UTF-8: {}", text.size(), utf8proc_errmsg(error)));
}

/// Unicode's White_Space property.
bool is_space(int32_t c) {
  return (c >= 9 && c <= 13) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

void append_lower(std::string& out, int32_t codepoint) {
  if (codepoint == 0x130) {  // the one character whose lower case is two
    out += "i\u0307";
  } else {
    append_utf8(out, utf8proc_tolower(codepoint));
  }
}

template <class F>
void for_each_codepoint(std::string_view text, F&& f) {
  while (!text.empty()) {
    utf8proc_int32_t codepoint = 0;
    const auto n = utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                                    static_cast<utf8proc_ssize_t>(text.size()), &codepoint);
    if (n < 0) not_utf8(text, n);
    f(codepoint);
    text.remove_prefix(static_cast<size_t>(n));
  }
}

bool stands_for_itself(int byte) {
  return (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
}

}  // namespace

std::string lower_case(std::string_view text) {
  std::string out;
  for_each_codepoint(text, [&](int32_t c) { append_lower(out, c); });
  return out;
}

std::string normalize_clip_text(std::string_view text) {
  utf8proc_uint8_t* composed = nullptr;
  const auto size = utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                                 static_cast<utf8proc_ssize_t>(text.size()), &composed,
                                 static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  if (size < 0) not_utf8(text, size);
  const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owner(composed, &std::free);
  std::string out;
  bool gap = false;
  for_each_codepoint({reinterpret_cast<const char*>(composed), static_cast<size_t>(size)}, [&](int32_t c) {
    if (is_space(c)) {
      gap = !out.empty();
      return;
    }
    if (gap) out.push_back(' ');
    gap = false;
    append_lower(out, c);
  });
  return out;
}

std::vector<TextSpan> cut_special_tokens(std::string_view text,
                                         const std::map<std::string, int32_t, std::less<>>& special) {
  std::vector<TextSpan> out;
  size_t from = 0;
  const auto ordinary = [&](size_t end) {
    if (end > from) out.push_back({text.substr(from, end - from), -1});
  };
  // By first byte, the lengths that a token may have here: ordinary text is passed over quickly.
  std::array<std::set<size_t, std::greater<>>, 256> lengths;
  for (const auto& [token, id] : special) {
    if (!token.empty()) lengths[static_cast<uint8_t>(token.front())].insert(token.size());
  }
  for (size_t at = 0; at < text.size();) {
    auto found = special.end();
    for (const size_t n : lengths[static_cast<uint8_t>(text[at])]) {
      if (n <= text.size() - at) found = special.find(text.substr(at, n));
      if (found != special.end()) break;
    }
    if (found == special.end()) {
      ++at;
      continue;
    }
    ordinary(at);
    out.push_back({text.substr(at, found->first.size()), found->second});
    at += found->first.size();
    from = at;
  }
  ordinary(text.size());
  return out;
}

struct PieceSplitter::Regex {
  pcre2_code* code = nullptr;
  ~Regex() { pcre2_code_free(code); }
};

PieceSplitter::PieceSplitter(const std::vector<std::string>& literals, std::string_view pattern)
    : regex_(std::make_unique<Regex>()) {
  std::string source;
  for (const std::string& literal : literals) {
    for (char c : literal) {
      const bool plain =
          (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || (c & 0x80);
      if (!plain) source.push_back('\\');
      source.push_back(c);
    }
    source.push_back('|');
  }
  source += pattern;
  int error = 0;
  PCRE2_SIZE offset = 0;
  regex_->code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(source.data()), source.size(),
                               PCRE2_UTF | PCRE2_UCP, &error, &offset, nullptr);
  if (!regex_->code) {
    std::array<PCRE2_UCHAR, 256> message{};
    pcre2_get_error_message(error, message.data(), message.size());
    throw Error(ErrorCode::format, fmt::format("split pattern, at character {}: {}", offset,
                                               reinterpret_cast<const char*>(message.data())));
  }
}

PieceSplitter::~PieceSplitter() = default;
PieceSplitter::PieceSplitter(PieceSplitter&&) noexcept = default;
PieceSplitter& PieceSplitter::operator=(PieceSplitter&&) noexcept = default;

std::vector<std::string_view> PieceSplitter::split(std::string_view text) const {
  const std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)> match(
      pcre2_match_data_create_from_pattern(regex_->code, nullptr), &pcre2_match_data_free);
  if (!match) throw Error(ErrorCode::out_of_host_memory, "no memory to split text");
  std::vector<std::string_view> pieces;
  uint32_t options = 0;  // the first call checks that the text is UTF-8
  for (size_t at = 0; at < text.size();) {
    const int found = pcre2_match(regex_->code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), at,
                                  options, match.get(), nullptr);
    if (found == PCRE2_ERROR_NOMATCH) break;
    if (found < 0)
      throw Error(ErrorCode::invalid_argument, fmt::format("cannot split the text (PCRE2 error {})", found));
    const PCRE2_SIZE* span = pcre2_get_ovector_pointer(match.get());
    if (span[1] <= at) break;  // an empty match would repeat for ever
    pieces.push_back(text.substr(span[0], span[1] - span[0]));
    at = span[1];
    options = PCRE2_NO_UTF_CHECK;
  }
  return pieces;
}

const std::array<std::string, 256>& byte_alphabet() {
  static const std::array<std::string, 256> kAlphabet = [] {
    std::array<std::string, 256> out;
    int32_t next = 256;
    for (int byte = 0; byte < 256; ++byte) {
      append_utf8(out[static_cast<size_t>(byte)], stands_for_itself(byte) ? byte : next++);
    }
    return out;
  }();
  return kAlphabet;
}

std::array<uint8_t, 256> byte_order() {
  std::array<uint8_t, 256> out{};
  size_t n = 0;
  for (bool first : {true, false}) {
    for (int byte = 0; byte < 256; ++byte) {
      if (stands_for_itself(byte) == first) out[n++] = static_cast<uint8_t>(byte);
    }
  }
  return out;
}

void BpeMerges::add(uint32_t left, uint32_t right, uint32_t merged) {
  merges_.try_emplace(key(left, right), Merge{static_cast<uint32_t>(merges_.size()), merged});
}

const BpeMerges::Merge* BpeMerges::find(uint32_t left, uint32_t right) const {
  const auto found = merges_.find(key(left, right));
  return found == merges_.end() ? nullptr : &found->second;
}

std::vector<uint32_t> BpeMerges::apply(const std::vector<uint32_t>& symbols) const {
  // A linked list of the symbols left, and a queue of the pairs that may be merged, by rank and then
  // position. Entries go stale when a neighbour is merged; they are recognised by their pair no longer being
  // there.
  struct Candidate {
    uint32_t rank;
    size_t at;
    uint64_t pair;
    bool operator<(const Candidate& o) const { return rank != o.rank ? rank > o.rank : at > o.at; }
  };
  const size_t n = symbols.size();
  std::vector<uint32_t> value = symbols;
  std::vector<size_t> next(n), previous(n);
  std::vector<char> alive(n, 1);
  std::priority_queue<Candidate> queue;
  const auto offer = [&](size_t at) {
    if (at >= n || next[at] >= n) return;
    const uint32_t left = value[at], right = value[next[at]];
    if (const Merge* merge = find(left, right)) queue.push({merge->rank, at, key(left, right)});
  };
  for (size_t i = 0; i < n; ++i) {
    next[i] = i + 1;
    previous[i] = i - 1;  // wraps to a value beyond n for the first
  }
  for (size_t i = 0; i < n; ++i) offer(i);
  std::vector<size_t> changed;
  while (!queue.empty()) {
    const uint32_t rank = queue.top().rank;
    changed.clear();
    for (; !queue.empty() && queue.top().rank == rank; queue.pop()) {
      const auto [_, at, pair] = queue.top();
      if (!alive[at] || next[at] >= n || key(value[at], value[next[at]]) != pair) continue;
      const size_t gone = next[at];
      value[at] = merges_.find(pair)->second.merged;
      alive[gone] = 0;
      next[at] = next[gone];
      if (next[gone] < n) previous[next[gone]] = at;
      changed.push_back(at);
    }
    for (size_t at : changed) {  // only now: pairs made by this rank wait until all of it is merged
      if (!alive[at]) continue;
      offer(previous[at]);
      offer(at);
    }
  }
  std::vector<uint32_t> out;
  for (size_t i = 0; i < n; i = next[i]) out.push_back(value[i]);
  return out;
}

}  // namespace vkflux
