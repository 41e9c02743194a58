// What files of tensors are, for `vkflux inspect`.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace vkflux::cli {

struct InspectOptions {
  std::string path;
  bool tensors = false, hash = false;
};

/// Everything about what a path names: a file, a part's folder, a model's folder, a folder of files. `code`
/// becomes the exit code of what is wrong with it.
nlohmann::ordered_json inspect_path(const InspectOptions& options, int& code);

}  // namespace vkflux::cli
