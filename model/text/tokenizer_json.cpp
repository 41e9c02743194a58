#include "model/text/tokenizer_json.h"

#include <fmt/format.h>

#include <algorithm>

#include "vk/error.h"

namespace vkflux::tokenizer_json {

const json& member(const json& object, const char* key) {
  static const json null;
  if (!object.is_object()) return null;
  const auto found = object.find(key);
  return found == object.end() ? null : *found;
}

std::string text_of(const json& object, const char* key) {
  const json& value = member(object, key);
  return value.is_string() ? value.get<std::string>() : std::string();
}

bool flag_of(const json& object, const char* key, bool fallback, const std::string& origin) {
  const json& value = member(object, key);
  if (value.is_null()) return fallback;
  if (!value.is_boolean())
    throw Error(ErrorCode::format, fmt::format("{}: \"{}\" is {}, expected true or false", origin, key,
                                               io::shown(io::json_text(value))));
  return value.get<bool>();
}

int64_t id_of(const json& value, const std::string& origin) {
  if (!value.is_number_integer() || (value.is_number_unsigned() && value.get<uint64_t>() > INT64_MAX))
    throw Error(ErrorCode::format, fmt::format("{}: a token's id is {}, expected an integer", origin,
                                               io::shown(io::json_text(value))));
  return value.get<int64_t>();
}

json object_of(std::string_view text, const std::string& origin) {
  if (text.empty()) return json::object();
  json parsed = io::parse_sorted_json(text, origin);
  if (!parsed.is_object()) throw Error(ErrorCode::format, fmt::format("{}: expected a JSON object", origin));
  return parsed;
}

void add(ByteBpeModel& out, const ByteBpeModel::Added& token) {
  if (token.text.empty()) return;
  const auto same =
      std::find_if(out.added.begin(), out.added.end(), [&](const auto& a) { return a.text == token.text; });
  if (same == out.added.end()) {
    out.added.push_back(token);
  } else {
    *same = token;
  }
}

void take_merge(std::string_view line, size_t number, const std::string& origin, ByteBpeModel& out) {
  const size_t gap = line.find(' ');
  if (gap == std::string_view::npos || gap == 0 || gap + 1 >= line.size() ||
      line.find(' ', gap + 1) != std::string_view::npos)
    throw Error(ErrorCode::format,
                fmt::format("{}: merge {} isn't two symbols with a space between", origin, number));
  out.merges.emplace_back(line.substr(0, gap), line.substr(gap + 1));
}

}  // namespace vkflux::tokenizer_json
