// The row of FLUX.2.
#pragma once

#include "model/family.h"

namespace vkflux {

Family flux2_family();

}  // namespace vkflux
