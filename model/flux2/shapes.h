// The published FLUX.2 models as shapes without weights.
#pragma once

#include <array>
#include <memory>
#include <string_view>

#include "model/family.h"

namespace vkflux {

inline constexpr std::array<std::string_view, 3> kFlux2Published{"flux2-dev", "flux2-klein-9b",
                                                                 "flux2-klein-4b"};
/// A model of one of these names whose parts can only be rehearsed.
std::unique_ptr<Model> flux2_shapes(Device& device, std::string_view name, const ModelOptions& options);

}  // namespace vkflux
