#include "tests/harness/tiny_pipeline.h"

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
  std::string path;
  explicit Folder(bool plain);
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }
};

Folder::Folder(bool plain)
    : path(testing::TempDir() + (plain ? "vkflux_plain_pipeline_" : "vkflux_tiny_pipeline_") +
           std::to_string(getpid())) {
  const auto clip_tokenizer = load_clip_tokenizer(kTokenizers + "clip");
  const auto t5_tokenizer = load_t5_tokenizer(kTokenizers + "t5");
  ClipTextConfig clip;
  clip.vocab = clip_tokenizer->vocab_size();
  clip.positions = 10;
  clip.width = plain ? 64 : 16;
  clip.layers = 1;
  clip.heads = plain ? 1 : 2;
  clip.mlp = 16;
  clip.eos = clip_tokenizer->eos_id();
  T5Config t5;
  t5.vocab = t5_tokenizer->vocab_size();
  t5.width = 12;
  t5.layers = 1;
  t5.heads = 2;
  t5.head_dim = 4;
  t5.mlp = 16;
  AutoencoderConfig vae;
  vae.latent_channels = 4;
  vae.encoder_widths = vae.decoder_widths = {8, 16};
  vae.blocks = 1;
  vae.groups = plain ? 8 : 4;
  Flux1Config flux;
  flux.in_channels = flux.out_channels = 16;
  flux.vec_in_dim = clip.width;
  flux.context_in_dim = 12;
  flux.hidden = 16;
  flux.mlp_hidden = 24;
  flux.heads = 1;
  flux.head_dim = 16;
  flux.depth = 1;
  flux.depth_single = 3;
  flux.axes_dim = {4, 6, 6};
  Flux1 transformer(flux);
  AutoencoderKL autoencoder(vae);
  ClipText clip_model(clip);
  T5Encoder t5_model(t5);
  randomise(transformer, 1, 0.1f);
  randomise(autoencoder, 2, 0.1f);
  randomise(clip_model, 3, 0.1f);
  randomise(t5_model, 4, 0.1f);
  SamplingDefaults defaults;
  defaults.steps = 3;
  defaults.cfg = 2;
  defaults.width = 16;
  defaults.height = 8;
  defaults.txt_tokens = 6;
  save_autoencoder(path + "/vae", autoencoder, defaults.width);
  save_flux1(path, {transformer, clip_model, t5_model, kTokenizers + "clip", kTokenizers + "t5",
                    path + "/vae", Schedule::flux1_schnell(), defaults, io::FileDType::f16});
}

}  // namespace

const std::string& tiny_pipeline() {
  static const Folder folder(false);
  return folder.path;
}

const std::string& plain_pipeline() {
  static const Folder folder(true);
  return folder.path;
}

BackboneLayout student_layout(int64_t heads, int64_t head_dim, int double_blocks, int single_blocks) {
  BackboneLayout out;
  out.family = "flux1";
  for (int i = 0; i < double_blocks; ++i)
    out.layers.push_back({"double_blocks." + std::to_string(i), heads, head_dim, false});
  for (int i = 0; i < single_blocks; ++i)
    out.layers.push_back({"single_blocks." + std::to_string(i), heads, head_dim, true});
  return out;
}

BackboneLayout tiny_student_model() {
  return student_layout(1, 16, 1, 3);
}

Students random_students(const BackboneLayout& model, bool ready) {
  Students s;
  s.model = model;
  s.config.head_dim = model.layers.back().head_dim;
  s.config.feature_dim = 32;
  uint64_t seed = 0;
  for (const int place : model.replaceable()) {
    auto student = std::make_shared<Student>();
    student->layer = std::make_shared<HkrLayer>(s.config, s.options);
    auto params = parameters(*student->layer);
    allocate(params, device());
    initialise(params, hkr_init(s.config), seed++);
    student->readiness.ready = ready;
    student->readiness.updates = 100;
    student->readiness.ema_cosine_dist = ready ? 0.01 : 0.9;
    s.layers[model.layers[static_cast<size_t>(place)].name] = student;
  }
  return s;
}

}  // namespace vkflux::test
