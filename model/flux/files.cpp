#include "model/flux/files.h"

#include <filesystem>
#include <vector>

#include "model/io/file.h"
#include "model/io/json.h"
#include "model/model_index.h"
#include "vk/error.h"

namespace vkflux {
namespace {

namespace fs = std::filesystem;

void copy_files(const std::string& from, const std::string& to) {
  std::error_code ec;
  if (fs::equivalent(from, to, ec)) return;
  for (const std::string& file : io::folder_entries(from)) {
    if (!io::is_folder(file)) io::atomic_write(to + "/" + io::last_name(file), io::read_file(file));
  }
}

void write_json(const std::string& path, const io::Json& json) {
  io::atomic_write(path, io::json_text(json, 2) + "\n");
}

// A tokenizer's files for an encoder of `length` ids: whoever pads to what they say must fit it.
void copy_tokenizer(const std::string& from, const std::string& to, int64_t length) {
  copy_files(from, to);
  const std::string config = to + "/tokenizer_config.json";
  std::error_code ignored;
  if (!fs::exists(config, ignored)) return;
  io::Json json = io::read_json(config);
  if (!json.is_object()) throw Error(ErrorCode::format, config + ": expected a JSON object");
  json["model_max_length"] = length;
  write_json(config, json);
}

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
  copy_files(p.autoencoder, dir + "/vae");
  copy_tokenizer(p.tokenizer, dir + "/tokenizer", p.clip.config().positions);
  copy_tokenizer(p.tokenizer_2, dir + "/tokenizer_2", p.defaults.txt_tokens);
  write_json(dir + "/scheduler/scheduler_config.json", p.schedule.to_json());
  write_json(dir + "/model_index.json", model_index("FluxPipeline", parts(), p.defaults));
}

}  // namespace vkflux
