#include "model/flux/parts.h"

namespace vkflux {

std::vector<PartRecipe> flux1_recipes(const Flux1Configs& c) {
  std::vector<PartRecipe> out;
  out.push_back(
      part_recipe<ClipText>("text_encoder", PartUse::per_prompt, io::clip_names(), &clip_storage(), c.clip));
  out.push_back(
      part_recipe<T5Encoder>("text_encoder_2", PartUse::per_prompt, io::t5_names(), &t5_storage(), c.t5));
  out.push_back(part_recipe<Flux1>("transformer", PartUse::per_step, io::flux1_names(), &flux1_storage(),
                                   c.transformer));
  out.push_back(vae_recipe(c.vae));
  return out;
}

}  // namespace vkflux
