// The words of chat templates.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace vkflux::chat {

struct Token {
  enum Kind { text, name, number, string, mark, open_print, close_print, open_do, close_do, end } kind = end;
  std::string value;
};

/// The text and tags of a template, the last of kind end. White space goes where tags take it away: "-", a
/// newline behind a statement, blanks in front of one that begins its line. Error format where a tag or a
/// text in it doesn't end.
std::vector<Token> tokens_of(std::string_view source);

}  // namespace vkflux::chat
