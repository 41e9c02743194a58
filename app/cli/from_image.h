// `vkflux sample --from-image`: the flags that a picture says it was drawn with.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

namespace vkflux::cli {

/// Gives the command's options what the picture at `path` says, but for those that were given, and says what
/// was taken and what wasn't. prompts: of --prompt, where the picture's is put unless one was given. Error
/// format where the picture says nothing.
void apply_from_image(CLI::App& command, const std::string& path, std::vector<std::string>& prompts);

}  // namespace vkflux::cli
