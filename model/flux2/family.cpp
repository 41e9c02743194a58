#include "model/flux2/family.h"

#include <fmt/format.h>

#include "model/flux2/component.h"
#include "model/flux2/files.h"
#include "model/flux2/lora.h"
#include "model/flux2/parts.h"
#include "model/flux2/shapes.h"
#include "model/flux2/tokenizer.h"
#include "model/io/file.h"
#include "model/model_index.h"
#include "model/text/decoder.h"
#include "model/vae/load.h"

namespace vkflux {
namespace {

bool is_pipeline(std::string_view name) {
  return name.starts_with("Flux2");
}

/// Qwen3 or Mistral.
ComponentKind text_component() {
  return {"text encoder (Qwen3 or Mistral)",
          [](const io::TensorSource& file, const io::Json& json) {
            auto found = qwen3_component().describe(file, json);
            return found ? found : mistral_component().describe(file, json);
          },
          qwen3_component().check};
}

/// Numbers that the transformer reads as others of its parts give them.
bool fits(const io::Json& transformer, std::string_view part, const io::Json& config) {
  const auto number = [](const io::Json& json, const char* key) { return json.value(key, int64_t{0}); };
  if (part == "text_encoder") {
    // FLUX.2 dev reads Mistral, klein reads Qwen3, both three of its hidden states.
    const bool dev = transformer.value("guidance_embeds", false);
    return number(transformer, "joint_attention_dim") == 3 * number(config, "hidden_size") &&
           dev == (config.value("model_type", std::string()) == "mistral");
  }
  if (part != "vae") return true;
  const io::Json patch = config.value("patch_size", io::Json::array({1, 1}));
  const int64_t side = patch.is_array() && !patch.empty() ? patch[0].get<int64_t>() : 1;
  return !config.contains("decoder_only") &&
         number(transformer, "in_channels") == side * side * number(config, "latent_channels");
}

std::vector<PromptTokenizer> tokenizers(const ModelFiles& files, const ModelOptions& options) {
  const int64_t length = text_tokens(read_model_index(files), 512, options.text_tokens);
  const io::Json config = read_config(files.parts.at("text_encoder"));
  const PromptKind kind =
      prompt_kind(decoder_config(*io::open_tensors(files.parts.at("text_encoder").path), config));
  return {{"tokenizer",
           std::make_shared<ChatTokenizer>(load_flux2_tokenizer(files, kind, options.remark), kind,
                                           !options.plain_prompts),
           static_cast<int>(length)}};
}

// Those of dev, whose names are all that smaller models have.
std::vector<lora::Component> published_lora_components() {
  return {flux2_lora_component(flux2_config(kFlux2Published[0]))};
}

}  // namespace

Family flux2_family() {
  Family out{"flux2", "FLUX.2", is_pipeline, open_flux2, create_flux2, tokenizers};
  out.parts = {
      {"transformer", "--diffusion-model", flux2_component(), {"diffusion_models", "unet"}, {"flux2"}, {}},
      {"text_encoder",
       "--llm",
       text_component(),
       {"text_encoders", "clip"},
       {"qwen", "qwen3", "mistral"},
       "hf download Comfy-Org/flux2-dev "
       "split_files/text_encoders/mistral_3_small_flux2_fp8.safetensors "
       "for FLUX.2 dev, Qwen/Qwen3-4B or Qwen/Qwen3-8B for klein"},
      {"vae",
       "--vae",
       flux2_autoencoder_component(),
       {"vae"},
       {"flux2-vae", "flux2_vae"},
       "hf download Comfy-Org/flux2-dev split_files/vae/flux2-vae.safetensors"}};
  out.tokenizer_names = {"tokenizer"};
  out.fits = fits;
  out.lora_components = published_lora_components;
  out.published = {kFlux2Published.begin(), kFlux2Published.end()};
  out.shapes = flux2_shapes;
  return out;
}

}  // namespace vkflux
