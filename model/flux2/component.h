// How files of FLUX.2's transformer are recognised and described.
#pragma once

#include "model/component.h"

namespace vkflux {

ComponentKind flux2_component();

}  // namespace vkflux
