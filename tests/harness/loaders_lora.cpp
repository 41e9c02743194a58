// LoRA files, matched to a small model and merged into weights of zeros.
#include "model/describe_lora.h"
#include "model/flux/lora.h"
#include "model/io/file.h"
#include "model/lora/lora.h"
#include "tests/harness/loaders.h"
#include "tests/harness/temp_folder.h"

namespace vkflux::test {
namespace {

io::TensorData tensor(const std::string& name, const std::vector<int64_t>& shape,
                      io::FileDType dtype = io::FileDType::f32) {
  int64_t n = 1;
  for (const int64_t d : shape) n *= d;
  return io::tensor_data(name, shape, std::vector<float>(static_cast<size_t>(n), 0.25f), dtype);
}

std::string file_of(const std::vector<io::TensorData>& tensors,
                    const std::map<std::string, std::string>& metadata = {}) {
  const TempFolder folder;
  io::write_safetensors(folder.file("x"), tensors, metadata);
  return io::read_file(folder.file("x"));
}

std::vector<lora::Component> components() {
  Flux1Config flux;
  flux.in_channels = flux.out_channels = 16;
  flux.vec_in_dim = 16;
  flux.context_in_dim = 12;
  flux.hidden = 16;
  flux.mlp_hidden = 24;
  flux.heads = 1;
  flux.head_dim = 16;
  flux.depth = flux.depth_single = 1;
  flux.axes_dim = {4, 6, 6};
  ClipTextConfig clip;
  clip.width = 16;
  clip.heads = 2;
  clip.layers = 1;
  clip.mlp = 16;
  T5Config t5;
  t5.width = 12;
  t5.heads = 2;
  t5.head_dim = 4;
  t5.layers = 1;
  t5.mlp = 16;
  return flux1_lora_components(flux, clip, t5);
}

void use(const std::string& path) {
  if (const auto j = lora::describe_lora(*lora::open_lora(path))) io::json_text(*j);
  const std::vector<lora::Component> parts = components();
  const LoraSet loras({{path, 0.5f}}, parts);
  for (const lora::Component& c : parts) {
    for (const auto& [name, m] : c.modules) {
      std::vector<float> weight(static_cast<size_t>(m.weight.numel()), 1.0f);
      if (m.weight.rank()) loras.merge(c.part, m.weight_name, weight);
      std::vector<float> bias(m.bias.rank() ? static_cast<size_t>(m.bias[0]) : 0);
      if (m.bias.rank()) loras.merge(c.part, name + ".bias", bias);
    }
  }
}

}  // namespace

std::vector<LoaderCase> lora_loaders() {
  const std::string d = "lora_unet_double_blocks_0_", s = "transformer.single_transformer_blocks.0.";
  LoaderCase c{
      "lora",
      "x.safetensors",
      {file_of({tensor(d + "img_attn_proj.lora_down.weight", {2, 16}),
                tensor(d + "img_attn_proj.lora_up.weight", {16, 2}, io::FileDType::f16),
                tensor(d + "img_attn_proj.alpha", {}), tensor(d + "img_attn_proj.dora_scale", {16, 1}),
                tensor(d + "txt_mlp_0.hada_w1_a", {24, 2}), tensor(d + "txt_mlp_0.hada_w1_b", {2, 16}),
                tensor(d + "txt_mlp_0.hada_w2_a", {24, 2}), tensor(d + "txt_mlp_0.hada_w2_b", {2, 16}),
                tensor("lora_te1_text_model_encoder_layers_0_mlp_fc1.diff", {16, 16})}),
       file_of(
           {tensor(s + "attn.to_q.lora_A.weight", {2, 16}), tensor(s + "attn.to_q.lora_B.weight", {16, 2}),
            tensor(s + "proj_mlp.lokr_w1", {4, 4}), tensor(s + "proj_mlp.lokr_w2_a", {6, 1}),
            tensor(s + "proj_mlp.lokr_w2_b", {1, 4}), tensor(s + "attn.norm_q.weight", {16})},
           {{"lora_adapter_metadata",
             R"({"transformer.lora_alpha":4,"transformer.use_rslora":true,"transformer.alpha_pattern":{"to_q":2}})"}})}};
  c.load = use;
  c.repair = repair_safetensors;
  c.rounds = 500;
  return {c};
}

}  // namespace vkflux::test
