// FLUX.1's row: transformer, CLIP and T5 encoders, AutoencoderKL, from and to a folder in diffusers' layout.
#pragma once

#include "model/component.h"
#include "model/family.h"

namespace vkflux {

Family flux1_family();
ComponentKind flux1_component();

}  // namespace vkflux
