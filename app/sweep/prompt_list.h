// Prompts from a JSON file: an array of texts (specification 10.2).
#pragma once

#include <string>
#include <vector>

namespace vkflux {

/// The texts, unchanged and in order; there may be none. White space around the path is dropped. Errors name
/// the path: invalid_argument (no path), io (no such file), format (no JSON, no array, an element that is no
/// text).
std::vector<std::string> load_prompt_list(const std::string& path);

}  // namespace vkflux
