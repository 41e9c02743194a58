#include "model/flux2/lora.h"

#include "model/flux2/transformer.h"

namespace vkflux {
namespace {

// diffusers' names where it has put q, k and v together.
const std::vector<lora::Alias>& aliases() {
  static const std::vector<lora::Alias> all{
      {"transformer_blocks.{i}.attn.to_qkv", "double_blocks.{i}.img_attn.qkv"},
      {"transformer_blocks.{i}.attn.to_added_qkv", "double_blocks.{i}.txt_attn.qkv"}};
  return all;
}

}  // namespace

lora::Component flux2_lora_component(const Flux2Config& config) {
  Flux2 model(config);
  lora::Component out = lora::component_of("transformer", lora::modules_of(model), io::flux2_names());
  out.aliases = aliases();
  return out;
}

}  // namespace vkflux
