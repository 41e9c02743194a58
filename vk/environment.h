// Environment variables.
#pragma once

#include <string>

namespace vkflux {

/// The value of a variable; one that is set but empty counts as unset, and both are "".
std::string environment(const char* name);

/// The folder for temporary files: $TMPDIR, else /tmp.
std::string temporary_folder();

}  // namespace vkflux
