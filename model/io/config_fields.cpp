#include "model/io/config_fields.h"

#include <algorithm>

namespace vkflux::io {

void refuse_other(const Json& object, const std::string& key, std::initializer_list<Json> known,
                  const std::string& origin) {
  const auto it = object.is_object() ? object.find(key) : object.end();
  if (it == object.end() || it->is_null()) return;
  if (std::find(known.begin(), known.end(), *it) != known.end()) return;
  std::string list;
  for (const Json& value : known) list += (list.empty() ? "" : " or ") + io::json_text(value);
  throw Error(ErrorCode::unsupported, fmt::format("{}: \"{}\" is {}; only {} is implemented", origin, key,
                                                  shown(json_text(*it)), list));
}

void refuse_contradiction(const Json& object, const std::string& key, const Json& actual,
                          const std::string& origin) {
  const auto it = object.is_object() ? object.find(key) : object.end();
  if (it == object.end() || it->is_null() || *it == actual) return;
  throw Error(ErrorCode::format, fmt::format("{}: \"{}\" is {}, but the weights have {}", origin, key,
                                             shown(json_text(*it)), json_text(actual)));
}

}  // namespace vkflux::io
