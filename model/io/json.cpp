#include "model/io/json.h"

#include <set>
#include <vector>

#include "model/io/file.h"

namespace vkflux::io {
namespace {

constexpr int kMaxDepth = 64;
constexpr size_t kMaxOrderedKeys = 32768;  // an ordered object finds a key by walking all of them

template <class T>
T parse(std::string_view text, const std::string& origin, size_t max_keys) {
  std::vector<std::set<std::string>> keys;
  std::string fault;
  const auto watch = [&](int depth, typename T::parse_event_t event, T& value) {
    if (depth > kMaxDepth) fault = "nested too deeply";
    if (event == T::parse_event_t::object_start) keys.emplace_back();
    if (event == T::parse_event_t::object_end && !keys.empty()) keys.pop_back();
    if (event == T::parse_event_t::key && !keys.empty() &&
        !keys.back().insert(value.template get<std::string>()).second) {
      fault = fmt::format("the key \"{}\" appears twice", shown(value.template get<std::string>()));
    }
    if (!keys.empty() && keys.back().size() > max_keys)
      fault = fmt::format("an object with over {} keys", max_keys);
    if (!fault.empty()) throw Error(ErrorCode::format, fmt::format("{}: {}", origin, fault));
    return true;
  };
  try {
    return T::parse(text.begin(), text.end(), watch);
  } catch (const nlohmann::json::exception& e) {
    throw Error(ErrorCode::format, fmt::format("{}: bad JSON: {}", origin, shown(e.what())));
  }
}

}  // namespace

Json parse_json(std::string_view text, const std::string& origin) {
  return parse<Json>(text, origin, kMaxOrderedKeys);
}

nlohmann::json parse_sorted_json(std::string_view text, const std::string& origin) {
  return parse<nlohmann::json>(text, origin, text.size());
}

Json read_json(const std::string& path, uint64_t max_bytes) {
  return parse_json(read_file(path, max_bytes), path);
}

}  // namespace vkflux::io
