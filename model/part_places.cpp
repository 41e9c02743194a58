#include "model/part_places.h"

#include <algorithm>

namespace vkflux {

std::vector<std::string> ModelFiles::paths() const {
  std::vector<std::string> out;
  const auto add = [&](const std::string& path) {
    if (!path.empty() && std::find(out.begin(), out.end(), path) == out.end()) out.push_back(path);
  };
  add(index);
  for (const auto& [name, part] : parts) {
    add(part.path);
    add(part.config);
  }
  for (const auto& [name, path] : tokenizers) add(path);
  add(scheduler);
  return out;
}

}  // namespace vkflux
