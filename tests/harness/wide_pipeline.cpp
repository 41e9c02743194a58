#include "tests/harness/wide_pipeline.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "model/flux/files.h"
#include "model/text/tokenizer.h"
#include "model/vae/load.h"
#include "tests/harness/random_model.h"

namespace vkflux::test {
namespace {

struct Folder {
  std::string path = testing::TempDir() + "vkflux_wide_pipeline_" + std::to_string(getpid());
  Folder();
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }
};

Folder::Folder() {
  const auto clip_tokenizer = load_clip_tokenizer(kTokenizers + "clip");
  const auto t5_tokenizer = load_t5_tokenizer(kTokenizers + "t5");
  ClipTextConfig clip;
  clip.vocab = clip_tokenizer->vocab_size();
  clip.positions = 10;
  clip.width = 64;
  clip.layers = 1;
  clip.heads = 2;
  clip.mlp = 64;
  clip.eos = clip_tokenizer->eos_id();
  T5Config t5;
  t5.vocab = t5_tokenizer->vocab_size();
  t5.width = 256;
  t5.layers = 4;
  t5.heads = 4;
  t5.head_dim = 64;
  t5.mlp = 512;
  AutoencoderConfig vae;
  vae.latent_channels = 4;
  vae.encoder_widths = vae.decoder_widths = {32, 32, 32};
  vae.blocks = 1;
  vae.groups = 8;
  Flux1Config flux;
  flux.in_channels = flux.out_channels = 16;
  flux.vec_in_dim = 64;
  flux.context_in_dim = 256;
  flux.hidden = 256;
  flux.mlp_hidden = 1024;
  flux.heads = 4;
  flux.head_dim = 64;
  flux.depth = 3;
  flux.depth_single = 5;
  flux.axes_dim = {8, 28, 28};
  Flux1 transformer(flux);
  AutoencoderKL autoencoder(vae);
  ClipText clip_model(clip);
  T5Encoder t5_model(t5);
  randomise(transformer, 1, 0.05f);
  randomise(autoencoder, 2, 0.05f);
  randomise(clip_model, 3, 0.05f);
  randomise(t5_model, 4, 0.05f);
  SamplingDefaults defaults;
  defaults.steps = 3;
  defaults.width = defaults.height = 64;
  defaults.txt_tokens = 16;
  save_autoencoder(path + "/vae", autoencoder, defaults.width);
  save_flux1(path, {transformer, clip_model, t5_model, kTokenizers + "clip", kTokenizers + "t5",
                    path + "/vae", Schedule::flux1_schnell(), defaults, io::FileDType::f16});
}

}  // namespace

const std::string& wide_pipeline() {
  static const Folder folder;
  return folder.path;
}

}  // namespace vkflux::test
