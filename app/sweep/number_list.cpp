#include "app/sweep/number_list.h"

#include <fmt/format.h>

#include <algorithm>

#include "model/io/json.h"
#include "model/text/characters.h"
#include "vk/error.h"

namespace vkflux {
namespace {

constexpr double kMaxCount = 1e6;

[[noreturn]] void no_number(const std::string& argument, const std::string& what) {
  throw Error(ErrorCode::invalid_argument, fmt::format("{}: {} is no number", argument, what));
}

double number(std::string_view text, const std::string& argument) {
  const std::optional<double> value = parse_number(text);
  if (!value) no_number(argument, fmt::format("'{}'", text));
  return *value;
}

std::vector<double> array_numbers(const io::Json& array, const std::string& argument) {
  std::vector<double> out;
  for (const io::Json& item : array) {
    if (item.is_string()) {
      out.push_back(number(item.get<std::string>(), argument));
    } else if (item.is_boolean()) {
      out.push_back(item.get<bool>() ? 1.0 : 0.0);
    } else if (item.is_number()) {
      out.push_back(item.get<double>());
    } else {
      no_number(argument, io::json_text(item).substr(0, 80));
    }
  }
  return out;
}

std::vector<double> count_up(std::string_view digits, const std::string& argument) {
  const double count = number(digits, argument);
  if (count > kMaxCount) {
    throw Error(
        ErrorCode::invalid_argument,
        fmt::format("{}: {} stands for 1, 2, ..., {}, which is too long a list", argument, digits, digits));
  }
  std::vector<double> out;
  for (double i = 1; i <= count; ++i) out.push_back(i);
  return out;
}

}  // namespace

std::vector<double> number_list(std::string_view text, const std::string& argument) {
  text = trim(text);
  if (text.empty()) return {};
  const std::u32string characters = to_characters(text);
  if (std::all_of(characters.begin(), characters.end(),
                  [](char32_t c) { return digit_value(c).has_value(); }))
    return count_up(text, argument);
  if (text.front() == '[') return array_numbers(io::parse_json(text, argument), argument);
  std::vector<double> out;
  std::u32string word;
  const auto finish = [&] {
    if (!word.empty()) out.push_back(number(to_utf8(word), argument));
    word.clear();
  };
  for (char32_t c : characters) {
    if (c == U',' || is_space(c)) {
      finish();
    } else {
      word += c;
    }
  }
  finish();
  return out;
}

std::vector<double> json_number_list(const io::Json& value, const std::string& argument) {
  if (value.is_null()) return {};
  if (value.is_string()) return number_list(value.get<std::string>(), argument);
  if (value.is_array()) return array_numbers(value, argument);
  throw Error(ErrorCode::invalid_argument, fmt::format("{}: a list of numbers or a text is needed, not {}",
                                                       argument, io::json_text(value).substr(0, 80)));
}

}  // namespace vkflux
