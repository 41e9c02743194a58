// The fields that configs of FLUX.1's parts may have.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "model/io/json.h"

namespace vkflux {

/// Those of a part's config.json ("transformer", "vae", ...) that are neither read nor known to change
/// nothing of a picture: what they stand for isn't honoured. Empty objects and lists, null and names that
/// begin with "_" say nothing.
std::vector<std::string> unknown_fields(std::string_view part, const io::Json& config);

}  // namespace vkflux
