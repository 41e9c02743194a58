// What the pages and plots have in common.
#pragma once

#include <string>

namespace vkflux {

/// &, <, > and " as entities.
std::string escape_html(const std::string& text);

}  // namespace vkflux
