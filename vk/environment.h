// Environment variables.
#pragma once

#include <string>

namespace vkflux {

/// The value of a variable; one that is set but empty counts as unset, and both are "".
std::string environment(const char* name);

/// Where what can be made again is kept: $VKFLUX_CACHE_DIR, $XDG_CACHE_HOME/vkflux or ~/.cache/vkflux; empty:
/// nowhere.
std::string cache_folder();

/// The folder for temporary files: $TMPDIR, else /tmp.
std::string temporary_folder();

}  // namespace vkflux
