// The published FLUX.1 models as shapes without weights: for planning memory before anything is downloaded.
#pragma once

#include <array>
#include <memory>
#include <string_view>

#include "model/family.h"

namespace vkflux {

inline constexpr std::array<std::string_view, 2> kFlux1Published{"flux1-dev", "flux1-schnell"};
/// A model of one of these names whose parts can only be rehearsed.
std::unique_ptr<Model> flux1_shapes(Device& device, std::string_view name, const ModelOptions& options);

}  // namespace vkflux
