// The one reader of options in golden files. Their writers are Python programs: an option that is null is
// absent, numbers may be texts ("nan", "-inf", "0.5"), counts may be booleans or 4.0, flags may be 0 and 1.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include "model/io/file.h"
#include "vk/error.h"

namespace vkflux::verify {

/// A number, true and false as 1 and 0, or a text that is a number, NaN and infinities among them.
std::optional<double> as_number(const nlohmann::json& value);
/// The same, its fraction cut off; nothing when it isn't finite or doesn't fit.
std::optional<int64_t> as_integer(const nlohmann::json& value);
/// A boolean, a number (not 0), or one of the words true, false, yes, no, on, off.
std::optional<bool> as_flag(const nlohmann::json& value);

template <class T>
struct IsVector : std::false_type {};
template <class T>
struct IsVector<std::vector<T>> : std::true_type {};

/// The value as a T: a number, a flag, a text, JSON itself, or a vector of such (a lone value is a vector of
/// one).
template <class T>
std::optional<T> as(const nlohmann::json& value) {
  if constexpr (std::is_same_v<T, nlohmann::json>) {
    return value;
  } else if constexpr (std::is_same_v<T, bool>) {
    return as_flag(value);
  } else if constexpr (std::is_integral_v<T>) {
    const std::optional<int64_t> n = as_integer(value);
    if (!n || !std::in_range<T>(*n)) return {};
    return static_cast<T>(*n);
  } else if constexpr (std::is_floating_point_v<T>) {
    const std::optional<double> x = as_number(value);
    return x ? std::optional<T>(static_cast<T>(*x)) : std::nullopt;
  } else if constexpr (IsVector<T>::value) {
    if (!value.is_array()) return as<T>(nlohmann::json::array({value}));
    T out;
    for (const nlohmann::json& item : value) {
      const auto one = as<typename T::value_type>(item);
      if (!one) return {};
      out.push_back(*one);
    }
    return out;
  } else {
    static_assert(std::is_same_v<T, std::string>);
    return value.is_string() ? std::optional(value.get<std::string>()) : std::nullopt;
  }
}

/// An option that may be absent or null. Error format when its value can't be a T.
template <class T>
std::optional<T> optional_field(const nlohmann::json& object, const std::string& key) {
  const auto it = object.is_object() ? object.find(key) : object.end();
  if (it == object.end() || it->is_null()) return {};
  const std::optional<T> value = as<T>(*it);
  if (!value) throw Error(ErrorCode::format, fmt::format("\"{}\" can't be {}", key, io::shown(it->dump())));
  return value;
}
template <class T>
T field(const nlohmann::json& object, const std::string& key, T fallback) {
  return optional_field<T>(object, key).value_or(std::move(fallback));
}
/// Error format when it is absent or null.
template <class T>
T required(const nlohmann::json& object, const std::string& key) {
  std::optional<T> value = optional_field<T>(object, key);
  if (!value) throw Error(ErrorCode::format, fmt::format("\"{}\" is missing", key));
  return *std::move(value);
}
/// A number that may be missing in its way: NaN for null.
inline double number_or_nan(const nlohmann::json& value) {
  return as_number(value).value_or(std::numeric_limits<double>::quiet_NaN());
}
/// The object under `key`; an empty one when it is absent or null.
inline nlohmann::json object_field(const nlohmann::json& object, const std::string& key) {
  return field(object, key, nlohmann::json::object());
}
/// The list under `key`, likewise.
inline nlohmann::json list_field(const nlohmann::json& object, const std::string& key) {
  return field(object, key, nlohmann::json::array());
}

}  // namespace vkflux::verify
