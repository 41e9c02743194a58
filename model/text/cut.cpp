#include "model/text/cut.h"

#include "model/text/characters.h"

namespace vkflux {
namespace {

/// Offsets where a text may be parted: at the ends of words, or, in a text of one word, of characters.
std::vector<size_t> seams(const std::string& text) {
  const std::u32string characters = to_characters(text);
  std::vector<size_t> words{0}, all{0};
  size_t at = 0;
  bool space = true;
  for (const char32_t c : characters) {
    if (is_space(c) && !space) words.push_back(at);
    space = is_space(c);
    at += to_utf8(std::u32string(1, c)).size();
    all.push_back(at);
  }
  return words.size() > 1 ? words : all;
}

/// The part of the text behind the longest front of at most `room` tokens.
std::string lost_part(const Tokenizer& tokenizer, const std::string& text, size_t room) {
  const std::vector<size_t> at = seams(text);
  size_t fits = 0, over = at.size();
  while (over - fits > 1) {
    const size_t half = (fits + over) / 2;
    (tokenizer.tokenize(std::string_view(text).substr(0, at[half])).size() <= room ? fits : over) = half;
  }
  return std::string(trim(std::string_view(text).substr(at[fits])));
}

}  // namespace

void find_cuts(const std::string& encoder, const Tokenizer& tokenizer, size_t room,
               const std::vector<std::string>& texts, std::vector<TextCut>& cuts) {
  for (size_t i = 0; i < texts.size(); ++i) {
    const size_t tokens = tokenizer.tokenize(texts[i]).size();
    if (room < tokens) cuts.push_back({i, encoder, tokens, room, lost_part(tokenizer, texts[i], room)});
  }
}

}  // namespace vkflux
