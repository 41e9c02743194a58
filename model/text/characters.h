// Classes of Unicode characters, after the general categories that utf8proc knows.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace vkflux {

/// Letters and numbers of any script (categories L* and N*).
bool is_alphanumeric(char32_t c);
/// White space: separators (Z*), tab to carriage return, the information separators and next line.
bool is_space(char32_t c);
/// 0..9 for a decimal digit of any script (category Nd).
std::optional<int> digit_value(char32_t c);

/// Characters of UTF-8; bytes that aren't part of one become U+FFFD, one each.
std::u32string to_characters(std::string_view utf8);
std::string to_utf8(std::u32string_view characters);
/// Without white space at both ends.
std::string_view trim(std::string_view utf8);

/// A decimal number as people write them: white space around it, a sign, decimal digits of any script with
/// single underscores between them, a point, an exponent; "inf", "infinity", "nan" in any case. Nothing for
/// other text. Independent of the locale; too large ones are infinite.
std::optional<double> parse_number(std::string_view utf8);

}  // namespace vkflux
