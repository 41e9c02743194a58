#include "app/verify/options.h"

#include <array>
#include <cmath>
#include <string_view>
#include <utility>

#include "model/text/characters.h"

namespace vkflux::verify {

std::optional<double> as_number(const nlohmann::json& value) {
  if (value.is_boolean()) return value.get<bool>() ? 1.0 : 0.0;
  if (value.is_number()) return value.get<double>();
  if (value.is_string()) return parse_number(value.get<std::string>());
  return {};
}

std::optional<int64_t> as_integer(const nlohmann::json& value) {
  if (value.is_number_integer()) {
    if (value.is_number_unsigned() && !std::in_range<int64_t>(value.get<uint64_t>())) return {};
    return value.get<int64_t>();
  }
  const std::optional<double> x = as_number(value);
  constexpr double kLimit = 0x1p63;
  if (!x || !(std::fabs(*x) < kLimit)) return {};
  return static_cast<int64_t>(*x);
}

std::optional<bool> as_flag(const nlohmann::json& value) {
  if (value.is_string()) {
    constexpr std::array<std::pair<std::string_view, bool>, 6> kWords{
        {{"true", true}, {"yes", true}, {"on", true}, {"false", false}, {"no", false}, {"off", false}}};
    std::string word = value.get<std::string>();
    for (char& c : word) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
    for (const auto& [text, flag] : kWords) {
      if (trim(word) == text) return flag;
    }
  }
  const std::optional<double> x = as_number(value);
  return x ? std::optional(*x != 0) : std::nullopt;
}

}  // namespace vkflux::verify
