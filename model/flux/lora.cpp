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

std::vector<lora::Component> flux1_lora_components(const Flux1Config& config, const ClipTextConfig& clip,
                                                   const T5Config& t5) {
  Flux1 transformer(config);
  ClipText clip_model(clip);
  T5Encoder t5_model(t5);
  std::vector<lora::Component> out;
  out.push_back(lora::component_of("transformer", lora::modules_of(transformer), io::flux1_names()));
  out.back().rows = flux1_row_split(config);
  out.back().aliases = transformer_aliases();
  out.push_back(lora::component_of("text_encoder", lora::modules_of(clip_model), io::clip_names()));
  out.push_back(lora::component_of("text_encoder_2", lora::modules_of(t5_model), io::t5_names()));
  return out;
}

}  // namespace vkflux
