// JSON from files that may be hostile: depth and size limited, duplicate keys refused.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include "model/io/file.h"
#include "vk/error.h"

namespace vkflux::io {

using Json = nlohmann::ordered_json;

/// What becomes of whole numbers beyond 64 bits: the nearest floating-point number, or their digits as a
/// text.
enum class WholeNumbers { round, keep_digits };

/// Error format naming `origin` and what is wrong. NaN, Infinity and -Infinity are read as Python writes
/// them.
Json parse_json(std::string_view text, const std::string& origin, WholeNumbers big = WholeNumbers::round);
/// For objects of any size, as vocabularies are; keys come back sorted.
nlohmann::json parse_sorted_json(std::string_view text, const std::string& origin);
Json read_json(const std::string& path, uint64_t max_bytes = 64ull << 20);

/// Whether a value is a T without rounding, wrapping or guessing: integers fit, true is no number, 1.5 no
/// integer.
template <class T>
bool holds(const Json& value) {
  if constexpr (std::is_same_v<T, bool>) {
    return value.is_boolean();
  } else if constexpr (std::is_integral_v<T>) {
    return value.is_number_unsigned() ? std::in_range<T>(value.get<uint64_t>())
                                      : value.is_number_integer() && std::in_range<T>(value.get<int64_t>());
  } else if constexpr (std::is_floating_point_v<T>) {
    return value.is_number();
  } else {
    return true;  // the library's own conversion checks the rest
  }
}

/// The value of `key`, of the right type; Error format says what was there instead.
template <class T>
T get(const Json& object, const std::string& key, const std::string& origin) {
  const auto it = object.is_object() ? object.find(key) : object.end();
  if (it == object.end()) throw Error(ErrorCode::format, fmt::format("{}: \"{}\" is missing", origin, key));
  try {
    if (holds<T>(*it)) return it->template get<T>();
  } catch (const nlohmann::json::exception&) {
  }
  throw Error(ErrorCode::format, fmt::format("{}: \"{}\" can't be {}", origin, key, shown(it->dump())));
}
template <class T>
T get_or(const Json& object, const std::string& key, T fallback, const std::string& origin) {
  return object.is_object() && object.contains(key) && !object[key].is_null() ? get<T>(object, key, origin)
                                                                              : fallback;
}

}  // namespace vkflux::io
