// The four parts of a FLUX.1 model.
#pragma once

#include <memory>
#include <vector>

#include "model/flux/transformer.h"
#include "model/part_weights.h"
#include "model/text/clip.h"
#include "model/text/t5.h"
#include "model/vae_part.h"

namespace vkflux {

struct Flux1Configs {
  ClipTextConfig clip;
  T5Config t5;
  Flux1Config transformer;
  VaePart vae;
};

/// text_encoder, text_encoder_2, transformer, vae.
std::vector<PartRecipe> flux1_recipes(const Flux1Configs& configs);

}  // namespace vkflux
