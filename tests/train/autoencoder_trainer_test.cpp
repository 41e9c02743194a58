// Training an autoencoder of FLUX.2's kind: its statistics are measured, not trained, and make latents
// standard.
#include "train/autoencoder_trainer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <random>

#include "model/io/png.h"
#include "model/vae/codec.h"
#include "model/vae/load.h"
#include "tests/harness/expect_error.h"
#include "tests/harness/gpu.h"
#include "tests/harness/temp_folder.h"

namespace vkflux {
namespace {

using test::device;

constexpr int kSide = 16;

/// Pictures of random waves.
Dataset pictures_in(const test::TempFolder& folder) {
  std::mt19937 random(3);
  for (int n = 0; n < 6; ++n) {
    io::Image8 image{kSide, kSide, {}};
    const unsigned fx = random() % 40, fy = random() % 40, phase = random() % 256;
    for (unsigned i = 0; i < kSide * kSide; ++i) {
      const unsigned v = fx * (i % kSide) + fy * (i / kSide) + phase;
      for (const unsigned c : {v, v * 2, v * 3, 255u}) image.rgba.push_back(static_cast<uint8_t>(c));
    }
    const std::string name = folder.file(std::to_string(n));
    io::write_png(name + ".png", image);
    std::ofstream(name + ".txt") << "picture " << n;
  }
  return Dataset::open(folder.path());
}

AutoencoderConfig tiny(std::string_view family) {
  AutoencoderConfig c = autoencoder_of(family);
  c.encoder_widths = c.decoder_widths = {8, 8};
  c.latent_channels = 3;
  c.blocks = 1;
  c.groups = 4;
  return c;
}

AutoencoderTrainOptions options() {
  AutoencoderTrainOptions o;
  o.size = kSide;
  o.split = "all";
  o.train.steps = 3;
  o.train.batch = 2;
  o.train.warmup = 1;
  return o;
}

TEST(AutoencoderTrainer, MeasuresTheStatisticsOfFlux2) {
  const test::TempFolder folder, out;
  const Dataset data = pictures_in(folder);
  const std::vector<size_t> all = data.split("all");
  AutoencoderKL model(tiny("flux2"));
  AutoencoderTrainer trainer(device(), model, data, options());
  for (const float v : model.encode(pictures(device(), data, all, kSide)).logvar.to_host())
    EXPECT_NEAR(v, -5, 0.5);
  while (!trainer.finished()) trainer.step();
  // Until then they change nothing but what the eps does.
  const Tensor x = pictures(device(), data, all, kSide);
  const Tensor z = model.encode(x).mean;
  const std::vector<float> before = model.to_latent(z).to_host(), folded = model.fold(z).to_host();
  for (size_t i = 0; i < before.size(); ++i) EXPECT_NEAR(before[i], folded[i], 1e-3);
  measure_latents(device(), model, data, all, kSide);
  const std::vector<float> latents = model.to_latent(z).to_host();
  ASSERT_EQ(latents.size(), all.size() * 12 * 16);
  for (size_t c = 0; c < 12; ++c) {
    double sum = 0, squares = 0, raw = 0, raw_squares = 0;
    for (size_t i = 0; i < latents.size(); ++i) {
      if (i / 16 % 12 != c) continue;
      sum += latents[i];
      squares += latents[i] * latents[i];
      raw += folded[i];
      raw_squares += folded[i] * folded[i];
    }
    const double n = static_cast<double>(all.size()) * 16, var = raw_squares / n - raw / n * (raw / n);
    EXPECT_NEAR(sum / n, 0, 1e-3) << c;
    EXPECT_NEAR(squares / n, var / (var + 1e-4), 2e-3) << c;
  }
  // What is saved is read again, statistics included.
  save_autoencoder(out.path(), model, kSide, io::FileDType::f32);
  const AutoencoderKL again = load_autoencoder(device(), out.path());
  EXPECT_EQ(again.to_latent(again.encode(x).mean).to_host(), latents);
  EXPECT_TRUE(
      io::SafetensorsFile(out.file("diffusion_pytorch_model.safetensors")).has("bn.num_batches_tracked"));
}

TEST(AutoencoderTrainer, MeasuresTheFactorsOfFlux1) {
  const test::TempFolder folder;
  const Dataset data = pictures_in(folder);
  AutoencoderKL model(tiny("flux1"));
  AutoencoderTrainer trainer(device(), model, data, options());
  measure_latents(device(), model, data, data.split("all"), kSide);
  const std::vector<float> latents =
      model.to_latent(model.encode(pictures(device(), data, data.split("all"), kSide)).mean).to_host();
  double sum = 0, squares = 0;
  for (const float v : latents) sum += v, squares += v * v;
  EXPECT_NEAR(sum / static_cast<double>(latents.size()), 0, 1e-3);
  EXPECT_NEAR(squares / static_cast<double>(latents.size()), 1, 1e-3);
  test::expect_error(ErrorCode::invalid_argument, {"flux1, flux2"}, [] { autoencoder_of("flux3"); });
}

}  // namespace
}  // namespace vkflux
