#include "model/text/chat_lexer.h"

#include <algorithm>
#include <cctype>
#include <utility>

#include "model/text/chat_values.h"

namespace vkflux::chat {
namespace {

class Lexer {
 public:
  explicit Lexer(std::string_view source) : s_(source) {
    bool trim = false;
    while (!s_.empty()) {
      const size_t tag = std::min({s_.find("{{"), s_.find("{%"), s_.find("{#"), s_.size()});
      std::string text(s_.substr(0, tag));
      s_.remove_prefix(tag);
      if (trim) text.erase(0, text.find_first_not_of(" \t\r\n\f\v"));
      if (!s_.empty()) {
        const char after = s_.size() > 2 ? s_[2] : ' ';
        if (after == '-') {
          text.erase(text.find_last_not_of(" \t\r\n\f\v") + 1);
        } else if (s_[1] != '{' && after != '+') {
          const size_t line = text.find_last_of('\n');
          const size_t from = line == std::string::npos ? 0 : line + 1;
          const bool starts = line != std::string::npos || line_start_;
          if (starts && text.find_first_not_of(" \t", from) == std::string::npos) text.resize(from);
        }
      }
      if (!text.empty()) tokens_.push_back({Token::text, text});
      if (s_.empty()) break;
      trim = tag_();
    }
    tokens_.push_back({});
  }
  std::vector<Token> take() { return std::move(tokens_); }

 private:
  bool at(std::string_view what) const { return s_.starts_with(what); }

  /// Whether the tag takes away the white space behind it.
  bool tag_() {
    const char kind = s_[1];
    s_.remove_prefix(2);
    if (!s_.empty() && (s_[0] == '-' || s_[0] == '+')) s_.remove_prefix(1);
    const std::string close = kind == '{' ? "}}" : kind == '%' ? "%}" : "#}";
    if (kind == '#') {
      const size_t end = s_.find(close);
      if (end == std::string_view::npos) bad("a comment doesn't end");
      const bool trim = end > 0 && s_[end - 1] == '-';
      s_.remove_prefix(end);
      return closed(2, trim, true);
    }
    tokens_.push_back({kind == '{' ? Token::open_print : Token::open_do, ""});
    while (true) {
      s_.remove_prefix(std::min(s_.find_first_not_of(" \t\r\n"), s_.size()));
      if (s_.empty()) bad("a tag doesn't end");
      const bool minus = at("-" + close), plus = at("+" + close);
      if (minus || plus || at(close)) {
        tokens_.push_back({kind == '{' ? Token::close_print : Token::close_do, ""});
        return closed(minus || plus ? 3 : 2, minus, kind == '%' && !plus);
      }
      word();
    }
  }
  bool closed(size_t size, bool trim, bool statement) {
    s_.remove_prefix(size);
    line_start_ = !trim && statement && at("\n");
    if (line_start_) s_.remove_prefix(1);
    return trim;
  }
  void word() {
    const auto letter = [](char c) { return std::isalpha(static_cast<unsigned char>(c)) || c == '_'; };
    const auto digit = [](char c) { return c >= '0' && c <= '9'; };
    size_t n = 1;
    Token token;
    if (letter(s_[0])) {
      while (n < s_.size() && (letter(s_[n]) || digit(s_[n]))) ++n;
      token = {Token::name, std::string(s_.substr(0, n))};
    } else if (digit(s_[0])) {
      while (n < s_.size() && (digit(s_[n]) || (s_[n] == '.' && n + 1 < s_.size() && digit(s_[n + 1])))) ++n;
      token = {Token::number, std::string(s_.substr(0, n))};
    } else if (s_[0] == '\'' || s_[0] == '"') {
      token.kind = Token::string;
      for (; n < s_.size() && s_[n] != s_[0]; ++n)
        token.value += s_[n] == '\\' && n + 1 < s_.size() ? escaped(s_[++n]) : std::string(1, s_[n]);
      if (n++ == s_.size()) bad("a text doesn't end");
    } else {
      for (const char* two : {"==", "!=", "<=", ">=", "//", "**"}) {
        if (at(two)) n = 2;
      }
      token = {Token::mark, std::string(s_.substr(0, n))};
    }
    s_.remove_prefix(n);
    tokens_.push_back(std::move(token));
  }
  static std::string escaped(char c) {
    switch (c) {
      case 'n':
        return "\n";
      case 't':
        return "\t";
      case 'r':
        return "\r";
      case '\\':
      case '\'':
      case '"':
        return {c};
      default:
        return {'\\', c};
    }
  }

  std::string_view s_;
  std::vector<Token> tokens_;
  bool line_start_ = true;
};

}  // namespace

std::vector<Token> tokens_of(std::string_view source) {
  return Lexer(source).take();
}

}  // namespace vkflux::chat
