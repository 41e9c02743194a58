#include "model/text/characters.h"

#include <utf8proc.h>

#include <array>
#include <charconv>
#include <limits>

namespace vkflux {
namespace {

constexpr char32_t kReplacement = 0xFFFD;

utf8proc_category_t category(char32_t c) {
  return utf8proc_category(static_cast<utf8proc_int32_t>(c));
}

// The character at the front and its length; U+FFFD of length 1 for a byte that begins none.
std::pair<char32_t, size_t> front_character(std::string_view utf8) {
  utf8proc_int32_t c = 0;
  const auto n = utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(utf8.data()),
                                  static_cast<utf8proc_ssize_t>(utf8.size()), &c);
  if (n <= 0) return {kReplacement, 1};
  return {static_cast<char32_t>(c), static_cast<size_t>(n)};
}

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

// ASCII of a number: digits of other scripts replaced, underscores between digits removed.
std::optional<std::string> plain_digits(std::string_view utf8) {
  std::string out;
  bool underscore = false;
  for (char32_t c : to_characters(utf8)) {
    const std::optional<int> digit = digit_value(c);
    if (underscore && !digit) return {};
    underscore = false;
    if (digit) {
      out += static_cast<char>('0' + *digit);
    } else if (c == U'_') {
      if (out.empty() || !is_digit(out.back())) return {};
      underscore = true;
    } else if (c < 0x80) {
      out += static_cast<char>(c >= U'A' && c <= U'Z' ? c + 32 : c);
    } else {
      return {};
    }
  }
  if (underscore) return {};
  return out;
}

// What from_chars calls out of range: infinite or nothing.
double beyond_range(std::string_view text) {
  const size_t e = text.find('e');
  if (e != std::string_view::npos) text = text.substr(e + 1);
  const bool tiny =
      e != std::string_view::npos ? text.front() == '-' : text.find_first_not_of("0.") > text.find('.');
  return tiny ? 0.0 : std::numeric_limits<double>::infinity();
}

}  // namespace

bool is_alphanumeric(char32_t c) {
  switch (category(c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
      return true;
    default:
      return false;
  }
}

bool is_space(char32_t c) {
  if ((c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x1F) || c == 0x85) return true;
  const utf8proc_category_t k = category(c);
  return k == UTF8PROC_CATEGORY_ZS || k == UTF8PROC_CATEGORY_ZL || k == UTF8PROC_CATEGORY_ZP;
}

std::optional<int> digit_value(char32_t c) {
  if (category(c) != UTF8PROC_CATEGORY_ND) return {};
  // Decimal digits are encoded in runs of ten or several tens that begin with a zero.
  char32_t start = c;
  while (start > 0 && category(start - 1) == UTF8PROC_CATEGORY_ND) --start;
  return static_cast<int>((c - start) % 10);
}

std::u32string to_characters(std::string_view utf8) {
  std::u32string out;
  while (!utf8.empty()) {
    const auto [c, n] = front_character(utf8);
    out += c;
    utf8.remove_prefix(n);
  }
  return out;
}

std::string to_utf8(std::u32string_view characters) {
  std::string out;
  std::array<utf8proc_uint8_t, 4> bytes{};
  for (char32_t c : characters) {
    const auto n = utf8proc_encode_char(static_cast<utf8proc_int32_t>(c), bytes.data());
    out.append(reinterpret_cast<const char*>(bytes.data()), static_cast<size_t>(n));
  }
  return out;
}

std::string_view trim(std::string_view utf8) {
  size_t begin = 0, end = 0;
  bool inside = false;
  for (size_t at = 0; at < utf8.size();) {
    const auto [c, n] = front_character(utf8.substr(at));
    if (!is_space(c)) {
      if (!inside) begin = at;
      inside = true;
      end = at + n;
    }
    at += n;
  }
  return utf8.substr(begin, end - begin);
}

std::optional<double> parse_number(std::string_view utf8) {
  const std::optional<std::string> plain = plain_digits(trim(utf8));
  if (!plain) return {};
  std::string_view text = *plain;
  const bool negative = !text.empty() && text.front() == '-';
  if (!text.empty() && (text.front() == '-' || text.front() == '+')) text.remove_prefix(1);
  double value = 0;
  if (text == "inf" || text == "infinity") {
    value = std::numeric_limits<double>::infinity();
  } else if (text == "nan") {
    value = std::numeric_limits<double>::quiet_NaN();
  } else {
    if (text.empty() || !(is_digit(text.front()) || text.front() == '.')) return {};
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (end != text.data() + text.size()) return {};
    if (error == std::errc::result_out_of_range) {
      value = beyond_range(text);
    } else if (error != std::errc()) {
      return {};
    }
  }
  return negative ? -value : value;
}

}  // namespace vkflux
