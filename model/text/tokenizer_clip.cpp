#include "model/text/tokenizer_clip.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "model/io/file.h"
#include "vk/error.h"

namespace vkflux {
namespace {

constexpr std::string_view kEndOfWord = "</w>";
constexpr int64_t kMaxId = 10'000'000;
constexpr size_t kMaxTokenBytes = 4096;

std::map<std::string, uint32_t> checked_ids(const ClipVocabulary& vocabulary) {
  std::map<std::string, uint32_t> out;
  std::set<int64_t> used;
  const auto add = [&](const std::string& token, int64_t id) {
    if (token.empty() || token.size() > kMaxTokenBytes || id < 0 || id >= kMaxId) {
      throw Error(ErrorCode::format,
                  fmt::format("vocabulary: token of {} bytes with id {}; expected 1 to {} bytes and an "
                              "id from 0 to {}",
                              token.size(), id, kMaxTokenBytes, kMaxId - 1));
    }
    const auto [at, is_new] = out.try_emplace(token, static_cast<uint32_t>(id));
    if ((is_new && !used.insert(id).second) || at->second != id) {
      throw Error(ErrorCode::format,
                  fmt::format("vocabulary: \"{}\" has id {}, which is taken or contradicts another file",
                              io::shown(token), id));
    }
  };
  for (const auto& [token, id] : vocabulary.ids) add(token, id);
  for (const auto& [token, id] : vocabulary.special) add(token, id);
  if (out.empty()) throw Error(ErrorCode::format, "vocabulary: it has no tokens");
  return out;
}

int32_t special_id(const std::map<std::string, uint32_t>& ids, const std::string& token,
                   std::string_view role) {
  const auto found = ids.find(token);
  if (found == ids.end()) {
    throw Error(ErrorCode::format,
                fmt::format("vocabulary: the {} token \"{}\" isn't in it", role, io::shown(token)));
  }
  return static_cast<int32_t>(found->second);
}

uint32_t symbol_of(const std::map<std::string, uint32_t>& symbols, const std::string& token, size_t rank) {
  const auto found = symbols.find(token);
  if (found == symbols.end()) {
    throw Error(ErrorCode::format,
                fmt::format("merge {}: \"{}\" isn't in the vocabulary", rank, io::shown(token)));
  }
  return found->second;
}

}  // namespace

ClipTokenizer::ClipTokenizer(const ClipVocabulary& vocabulary) : splitter_({}, kClipPattern) {
  auto symbols = checked_ids(vocabulary);
  for (const auto& [token, id] : symbols) {
    size_ = std::max(size_, static_cast<int32_t>(id) + 1);
    pieces_[static_cast<int32_t>(id)] = token;
  }
  start_ = special_id(symbols, vocabulary.start, "start");
  end_ = special_id(symbols, vocabulary.end, "end");
  pad_ = vocabulary.pad.empty() ? end_ : special_id(symbols, vocabulary.pad, "padding");
  unknown_ = vocabulary.unknown.empty() ? end_ : special_id(symbols, vocabulary.unknown, "unknown");

  for (const auto& [token, id] : vocabulary.special) special_[token] = static_cast<int32_t>(id);
  special_[vocabulary.start] = start_;
  special_[vocabulary.end] = end_;
  for (const auto& [token, id] : special_) literals_[lower_case(token)] = id;
  std::vector<std::string> longest_first;
  for (const auto& [token, id] : literals_) longest_first.push_back(token);
  std::stable_sort(longest_first.begin(), longest_first.end(),
                   [](const auto& a, const auto& b) { return a.size() > b.size(); });
  splitter_ = PieceSplitter(longest_first, kClipPattern);

  add_bytes(symbols);
  add_merges(vocabulary, symbols);
}

/// Small vocabularies may lack some bytes; these get symbols beyond the ids and come out as the unknown
/// token.
void ClipTokenizer::add_bytes(std::map<std::string, uint32_t>& symbols) {
  auto next = static_cast<uint32_t>(size_);
  for (size_t byte = 0; byte < 256; ++byte) {
    const std::string& character = byte_alphabet()[byte];
    const auto inside = symbols.try_emplace(character, next);
    next += inside.second ? 1 : 0;
    const auto last = symbols.try_emplace(character + std::string(kEndOfWord), next);
    next += last.second ? 1 : 0;
    byte_symbol_[byte] = inside.first->second;
    last_byte_symbol_[byte] = last.first->second;
  }
}

void ClipTokenizer::add_merges(const ClipVocabulary& vocabulary,
                               const std::map<std::string, uint32_t>& symbols) {
  for (size_t rank = 0; rank < vocabulary.merges.size(); ++rank) {
    const auto& [left, right] = vocabulary.merges[rank];
    merges_.add(symbol_of(symbols, left, rank), symbol_of(symbols, right, rank),
                symbol_of(symbols, left + right, rank));
  }
}

void ClipTokenizer::append_piece(std::string_view piece, std::vector<int32_t>& ids) const {
  const auto literal = literals_.find(piece);
  if (literal != literals_.end()) {
    ids.push_back(literal->second);
    return;
  }
  std::vector<uint32_t> symbols;
  for (char c : piece) symbols.push_back(byte_symbol_[static_cast<uint8_t>(c)]);
  symbols.back() = last_byte_symbol_[static_cast<uint8_t>(piece.back())];
  for (uint32_t symbol : merges_.apply(symbols)) {
    ids.push_back(symbol < static_cast<uint32_t>(size_) ? static_cast<int32_t>(symbol) : unknown_);
  }
}

std::vector<int32_t> ClipTokenizer::tokenize(std::string_view text) const {
  if (text.size() > kMaxTextBytes) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("text of {} bytes; a prompt has at most {}", text.size(), kMaxTextBytes));
  }
  std::vector<int32_t> ids;
  for (const TextSpan& span : cut_special_tokens(text, special_)) {
    if (span.special >= 0) {
      ids.push_back(span.special);
      continue;
    }
    const std::string clean = normalize_clip_text(span.text);
    for (std::string_view piece : splitter_.split(clean)) append_piece(piece, ids);
  }
  return ids;
}

std::string ClipTokenizer::piece(int32_t id) const {
  const auto found = pieces_.find(id);
  return found == pieces_.end() ? std::string() : found->second;
}

std::vector<int32_t> ClipTokenizer::encode(std::string_view text, int length) const {
  if (length < 2) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("CLIP tokens: length {}; expected at least 2, for start and end", length));
  }
  const auto content = tokenize(text);
  std::vector<int32_t> ids{start_};
  ids.insert(ids.end(), content.begin(),
             content.begin() + static_cast<std::ptrdiff_t>(std::min(content.size(), room(length))));
  ids.push_back(end_);
  ids.resize(static_cast<size_t>(length), pad_);
  return ids;
}

}  // namespace vkflux
