#include "model/flux2/parts.h"

#include <algorithm>

#include "model/text/prompt_encoder.h"

namespace vkflux {

int64_t Flux2Configs::text_layers() const {
  return *std::max_element(states.begin(), states.end());
}

Flux2Configs flux2_configs(std::string_view name) {
  Flux2Configs out;
  out.transformer = flux2_config(name);
  out.vae.config = autoencoder_of("flux2");
  const bool dev = out.transformer.guidance;
  out.states = published_states(dev ? PromptKind::mistral : PromptKind::qwen3);
  out.text = dev ? mistral_small_config() : name == "flux2-klein-9b" ? qwen3_8b_config() : qwen3_4b_config();
  return out;
}

std::vector<PartRecipe> flux2_recipes(Device& device, const Flux2Configs& c, Flux2Text file) {
  std::vector<PartRecipe> out;
  PartRecipe text{"text_encoder", PartUse::per_prompt, std::move(file.names), &decoder_storage(), {}};
  text.make = [&device, config = c.text, layers = c.text_layers(), embedding = std::move(file.embedding)] {
    const auto module = std::make_shared<DecoderLm>(config, layers);
    module->leave_embedding(embedding, device);
    return part_module(module);
  };
  out.push_back(std::move(text));
  out.push_back(part_recipe<Flux2>("transformer", PartUse::per_step, io::flux2_names(), &flux2_storage(),
                                   c.transformer));
  out.push_back(vae_recipe(c.vae));
  return out;
}

}  // namespace vkflux
