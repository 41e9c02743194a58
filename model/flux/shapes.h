// The published FLUX.1 models as shapes without weights: for planning memory before anything is downloaded.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "model/family.h"

namespace vkflux {

/// "flux1-dev", "flux1-schnell"
std::vector<std::string_view> shape_names();
/// A model whose parts can only be rehearsed (vk/rehearsal.h). Error invalid_argument lists the names.
std::unique_ptr<Model> flux1_shapes(Device& device, std::string_view name, const ModelOptions& options);

}  // namespace vkflux
