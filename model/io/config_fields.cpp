#include "model/io/config_fields.h"

#include <algorithm>

namespace vkflux::io {

void refuse_other(const Json& object, const std::string& key, std::initializer_list<Json> known,
                  const std::string& origin) {
  const auto it = object.is_object() ? object.find(key) : object.end();
  if (it == object.end() || it->is_null()) return;
  if (std::find(known.begin(), known.end(), *it) != known.end()) return;
  std::string list;
  for (const Json& value : known) list += (list.empty() ? "" : " or ") + value.dump();
  throw Error(ErrorCode::unsupported,
              fmt::format("{}: \"{}\" is {}; only {} is implemented", origin, key, shown(it->dump()), list));
}

}  // namespace vkflux::io
