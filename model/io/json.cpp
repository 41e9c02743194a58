#include "model/io/json.h"

#include <set>
#include <vector>

#include "model/io/file.h"

namespace vkflux::io {
namespace {

constexpr int kMaxDepth = 64;

}  // namespace

Json parse_json(std::string_view text, const std::string& origin) {
  std::vector<std::set<std::string>> keys;
  std::string fault;
  const auto watch = [&](int depth, Json::parse_event_t event, Json& value) {
    if (depth > kMaxDepth) fault = "nested too deeply";
    if (event == Json::parse_event_t::object_start) keys.emplace_back();
    if (event == Json::parse_event_t::object_end && !keys.empty()) keys.pop_back();
    if (event == Json::parse_event_t::key && !keys.empty() &&
        !keys.back().insert(value.get<std::string>()).second) {
      fault = fmt::format("the key \"{}\" appears twice", value.get<std::string>());
    }
    if (!fault.empty()) throw Error(ErrorCode::format, fmt::format("{}: {}", origin, fault));
    return true;
  };
  try {
    return Json::parse(text.begin(), text.end(), watch);
  } catch (const nlohmann::json::exception& e) {
    throw Error(ErrorCode::format, fmt::format("{}: bad JSON: {}", origin, e.what()));
  }
}

Json read_json(const std::string& path, uint64_t max_bytes) {
  return parse_json(read_file(path, max_bytes), path);
}

}  // namespace vkflux::io
