#include "model/flux/files.h"

#include "model/io/json.h"
#include "model/model_index.h"
#include "model/trained_files.h"

namespace vkflux {
namespace {

io::Json parts() {
  const auto part = [](const char* library, const char* type) { return io::Json::array({library, type}); };
  return {{"scheduler", part("diffusers", "FlowMatchEulerDiscreteScheduler")},
          {"text_encoder", part("transformers", "CLIPTextModel")},
          {"text_encoder_2", part("transformers", "T5EncoderModel")},
          {"tokenizer", part("transformers", "CLIPTokenizer")},
          {"tokenizer_2", part("transformers", "T5TokenizerFast")},
          {"transformer", part("diffusers", "FluxTransformer2DModel")},
          {"vae", part("diffusers", "AutoencoderKL")}};
}

}  // namespace

void save_flux1(const std::string& dir, const Flux1Parts& p) {
  const Flux1Config& flux = p.transformer.config();
  save(parameters(p.transformer), dir + "/transformer/diffusion_pytorch_model.safetensors", io::flux1_names(),
       p.matrices, flux1_row_split(flux));
  write_json(dir + "/transformer/config.json", flux1_json(flux));
  save(parameters(p.clip), dir + "/text_encoder/model.safetensors", io::clip_names(), p.matrices);
  write_json(dir + "/text_encoder/config.json", clip_json(p.clip.config()));
  save(parameters(p.t5), dir + "/text_encoder_2/model.safetensors", io::t5_names(), p.matrices);
  write_json(dir + "/text_encoder_2/config.json", t5_json(p.t5.config()));
  copy_folder(p.autoencoder, dir + "/vae");
  copy_tokenizer(p.tokenizer, dir + "/tokenizer", p.clip.config().positions);
  copy_tokenizer(p.tokenizer_2, dir + "/tokenizer_2", p.defaults.txt_tokens);
  write_json(dir + "/scheduler/scheduler_config.json", p.schedule.to_json());
  write_json(dir + "/model_index.json", model_index("FluxPipeline", parts(), p.defaults));
}

}  // namespace vkflux
