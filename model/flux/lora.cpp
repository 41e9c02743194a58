#include "model/flux/lora.h"

namespace vkflux {
namespace {

// XLabs' names: one adapter for q, k and v, and one that some of its programs train on the attention's part
// of linear2's input alone.
const std::vector<lora::Alias>& transformer_aliases() {
  static const std::vector<lora::Alias> aliases = [] {
    const std::string d = "double_blocks.{i}.", s = "single_blocks.{i}.";
    return std::vector<lora::Alias>{{d + "processor.qkv_lora1", d + "img_attn.qkv"},
                                    {d + "processor.qkv_lora2", d + "txt_attn.qkv"},
                                    {d + "processor.proj_lora1", d + "img_attn.proj"},
                                    {d + "processor.proj_lora2", d + "txt_attn.proj"},
                                    {s + "processor.qkv_lora", s + "linear1", 0, 3},
                                    {s + "processor.proj_lora", s + "linear2", 0, 0, true}};
  }();
  return aliases;
}

}  // namespace

lora::Component flux1_lora_component(const Flux1Config& config) {
  Flux1 model(config);
  lora::Component out = lora::component_of("transformer", lora::modules_of(model), io::flux1_names());
  out.rows = flux1_row_split(config);
  out.aliases = transformer_aliases();
  return out;
}

lora::Component clip_lora_component(const ClipTextConfig& config) {
  ClipText model(config);
  return lora::component_of("text_encoder", lora::modules_of(model), io::clip_names());
}

lora::Component t5_lora_component(const T5Config& config) {
  T5Encoder model(config);
  return lora::component_of("text_encoder_2", lora::modules_of(model), io::t5_names());
}

std::vector<lora::Component> flux1_lora_components(const Flux1Config& config, const ClipTextConfig& clip,
                                                   const T5Config& t5) {
  return {flux1_lora_component(config), clip_lora_component(clip), t5_lora_component(t5)};
}

}  // namespace vkflux
