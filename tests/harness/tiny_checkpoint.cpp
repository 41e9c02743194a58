#include "tests/harness/tiny_checkpoint.h"
#include "model/sampler/schedule.h"

#include <filesystem>
#include <vector>

#include "model/flux/transformer.h"
#include "model/io/file.h"
#include "model/io/names.h"
#include "model/module.h"
#include "model/text/clip.h"
#include "model/text/t5.h"
#include "model/text/tokenizer.h"
#include "model/vae/autoencoder.h"

namespace vkflux::test {
namespace {

namespace fs = std::filesystem;

const std::string kTokenizers = std::string(VKFLUX_SOURCE_DIR) + "/tests/data/tokenizers/";

// Like load.h's save(), for modules whose parameters have no tensors yet.
void write_weights(const std::vector<Param>& params, const std::string& path, const io::NameTable& table,
                   const RowSplit& rows = {}) {
  std::vector<io::TensorData> out;
  for (const Param& p : params) {
    std::vector<float> values(static_cast<size_t>(p.shape.numel()));
    for (size_t i = 0; i < values.size(); ++i) values[i] = 0.01f * static_cast<float>(i * 7 % 31) - 0.1f;
    auto parts = io::to_foreign(p.name, {p.shape.begin(), p.shape.end()}, values, table, io::FileDType::f32,
                                rows ? rows(p) : std::vector<int64_t>{});
    for (io::TensorData& d : parts) out.push_back(std::move(d));
  }
  io::write_safetensors(path, out);
}

void write_json(const std::string& path, const io::Json& json) {
  io::atomic_write(path, json.dump());
}

void write_transformer(const std::string& folder) {
  Flux1Config c;
  c.in_channels = c.out_channels = 16;
  c.vec_in_dim = 16;
  c.context_in_dim = 12;
  c.hidden = 16;
  c.mlp_hidden = 24;
  c.heads = 1;
  c.head_dim = 16;
  c.depth = c.depth_single = 1;
  c.axes_dim = {4, 6, 6};
  Flux1 model(c);
  write_weights(parameters(model), folder + "/diffusion_pytorch_model.safetensors", io::flux1_names(),
                flux1_row_split(c));
  write_json(folder + "/config.json", flux1_json(c));
}

void write_autoencoder(const std::string& folder) {
  AutoencoderConfig c;
  c.latent_channels = 4;
  c.encoder_widths = c.decoder_widths = {8, 16};
  c.blocks = 1;
  c.groups = 4;
  AutoencoderKL model(c);
  write_weights(parameters(model), folder + "/diffusion_pytorch_model.safetensors",
                io::vae_names(c.levels()));
  write_json(folder + "/config.json", autoencoder_json(c, 16));
}

void write_clip(const std::string& folder, const Tokenizer& tokenizer) {
  ClipTextConfig c;
  c.vocab = tokenizer.vocab_size();
  c.positions = 10;
  c.width = 16;
  c.layers = 1;
  c.heads = 2;
  c.mlp = 16;
  c.eos = tokenizer.eos_id();
  ClipText model(c);
  write_weights(parameters(model), folder + "/model.safetensors", io::clip_names());
  write_json(folder + "/config.json", clip_json(c));
}

void write_t5(const std::string& folder, const Tokenizer& tokenizer) {
  T5Config c;
  c.vocab = tokenizer.vocab_size();
  c.width = 12;
  c.layers = 1;
  c.heads = 2;
  c.head_dim = 4;
  c.mlp = 16;
  T5Encoder model(c);
  write_weights(parameters(model), folder + "/model.safetensors", io::t5_names());
  write_json(folder + "/config.json", t5_json(c));
}

}  // namespace

void write_tiny_checkpoint(const std::string& folder) {
  write_transformer(folder + "/transformer");
  write_autoencoder(folder + "/vae");
  write_clip(folder + "/text_encoder", *load_clip_tokenizer(kTokenizers + "clip"));
  write_t5(folder + "/text_encoder_2", *load_t5_tokenizer(kTokenizers + "t5"));
  fs::copy(kTokenizers + "clip", folder + "/tokenizer", fs::copy_options::recursive);
  fs::copy(kTokenizers + "t5", folder + "/tokenizer_2", fs::copy_options::recursive);
  write_json(folder + "/scheduler/scheduler_config.json", Schedule::flux1_schnell().to_json());
  write_json(folder + "/model_index.json",
             {{"_class_name", "FluxPipeline"},
              {"vkflux", {{"steps", 2}, {"cfg", 2}, {"guidance", 3.5}, {"size", 8}, {"txt_tokens", 6}}}});
}

}  // namespace vkflux::test
