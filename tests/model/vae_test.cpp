#include <gtest/gtest.h>

#include <cmath>

#include "autograd/ops.h"
#include "model/vae/autoencoder.h"
#include "tests/model/golden_case.h"
#include "vk/error.h"

namespace vkflux {
namespace {

using test::device;
using test::GoldenCase;

AutoencoderConfig tiny() {
  AutoencoderConfig c;
  c.latent_channels = 4;
  c.encoder_widths = c.decoder_widths = {8, 16};
  c.blocks = 1;
  c.groups = 4;
  return c;
}

void randomise(AutoencoderKL& model) {
  auto params = parameters(model);
  allocate(params, device());
  initialise(
      params,
      [](const Param& p) {
        return p.name.find("norm") != std::string::npos && p.name.ends_with("weight")
                   ? Init{Init::Kind::constant, 1}
                   : Init{Init::Kind::normal, 0.1f};
      },
      4);
}

TEST(Autoencoder, MatchesDiffusersLayoutAndValues) {
  const GoldenCase golden = GoldenCase::data("vae_diffusers_names.safetensors");
  const io::NamedTensors file = golden.weights(io::vae_names(4));
  AutoencoderConfig config = infer_autoencoder_config(shapes_of(file));
  EXPECT_EQ(config.encoder_widths, (std::vector<int64_t>{8, 8, 16, 16}));
  EXPECT_EQ(config.latent_channels, 4);
  EXPECT_EQ(config.blocks, 1);
  EXPECT_EQ(config.groups, 8);
  config.groups = 4;
  AutoencoderKL model(config);
  load(parameters(model), file, device());
  Trace trace;
  const auto posterior = model.encode(golden.tensor("in.image"), &trace);
  golden.check("mid.encoder.conv_in", trace["encoder.conv_in"]);
  golden.check("mid.encoder.mid_block", trace["encoder.mid.block_2"]);
  golden.check("out.mean", posterior.mean);
  const Tensor decoded = model.decode(golden.tensor("in.z"), &trace);
  golden.check("mid.decoder.mid_block.attentions.0", trace["decoder.mid.attn_1"]);
  golden.check("mid.decoder.up_blocks.3", trace["decoder.up.0"]);
  golden.check("out.decoded", decoded);
}

TEST(Autoencoder, SavesWhatItLoads) {
  const GoldenCase golden = GoldenCase::data("vae_diffusers_names.safetensors");
  AutoencoderConfig config = infer_autoencoder_config(shapes_of(golden.weights(io::vae_names(4))));
  AutoencoderKL model(config);
  load(parameters(model), golden.weights(io::vae_names(4)), device());
  const std::string path = testing::TempDir() + "vae_test_saved.safetensors";
  save(parameters(model), path, io::vae_names(4), io::FileDType::f32);
  const io::SafetensorsFile saved(path);
  EXPECT_EQ(saved.tensors().size(), parameters(model).size());
  for (const auto& [name, info] : saved.tensors())
    EXPECT_EQ(saved.read_f32(name), golden.values("w." + name)) << name;
  std::remove(path.c_str());
}

TEST(Autoencoder, CountsThePublishedModel) {
  AutoencoderKL model(AutoencoderConfig{});
  EXPECT_EQ(count(parameters(model)), 83'819'683);
  AutoencoderConfig config;
  apply_autoencoder_json(config, autoencoder_json(config, 1024));
  EXPECT_FLOAT_EQ(config.scaling_factor, 0.3611f);
  apply_autoencoder_json(config, {{"act_fn", "swish"}});
  for (const auto& [key, value] : std::vector<std::pair<const char*, io::Json>>{
           {"act_fn", "glue"},
           {"use_quant_conv", true},
           {"mid_block_add_attention", false},
           {"down_block_types", {"DownEncoderBlock2D", "AttnDownEncoderBlock2D"}},
           {"up_block_types", {"AttnUpDecoderBlock2D"}}})
    EXPECT_THROW(apply_autoencoder_json(config, {{key, value}}), Error) << key;
}

TEST(Autoencoder, GradientsMatchDifferencesOfTheLoss) {
  AutoencoderKL model(tiny());
  randomise(model);
  const Tensor image = op::normal(device(), {1, 3, 4, 6}, 1, 0);
  const auto loss = [&] {
    const auto p = model.encode(image);
    return op::mean_all(op::unary(op::add(model.decode(p.mean), op::mean_all(p.logvar)), op::Unary::square));
  };
  auto params = parameters(model);
  Tape tape;
  for (const Param& p : params) tape.watch(*p.tensor);
  Tensor value;
  {
    const auto scope = tape.record();
    value = loss();
  }
  const Grads grads = tape.backward(value);
  for (const char* name :
       {"encoder.conv_in.weight", "encoder.down.0.downsample.conv.weight",
        "encoder.down.1.block.0.nin_shortcut.weight", "encoder.mid.attn_1.q.weight", "encoder.conv_out.bias",
        "decoder.conv_in.weight", "decoder.mid.attn_1.proj_out.weight", "decoder.up.1.upsample.conv.weight",
        "decoder.up.0.block.1.norm2.weight", "decoder.conv_out.weight"}) {
    const auto it =
        std::find_if(params.begin(), params.end(), [&](const Param& p) { return p.name == name; });
    ASSERT_NE(it, params.end()) << name;
    const std::vector<float> start = it->tensor->to_host(), g = grads.of(*it->tensor).to_host();
    double norm2 = 0;
    for (const float x : g) norm2 += static_cast<double>(x) * x;
    ASSERT_GT(norm2, 0) << name;
    const double h = 0.003 / std::sqrt(norm2);
    const auto shifted = [&](double by) {
      std::vector<float> moved(start);
      for (size_t i = 0; i < g.size(); ++i) moved[i] += static_cast<float>(by * g[i]);
      it->tensor->copy_from_host(std::span<const float>(moved));
      return static_cast<double>(loss().item());
    };
    const double slope = (shifted(h) - shifted(-h)) / (2 * h);
    it->tensor->copy_from_host(std::span<const float>(start));
    EXPECT_NEAR(slope / norm2, 1, 0.03) << name;
  }
}

TEST(Autoencoder, ScalesLatentsThereAndBack) {
  AutoencoderKL model(tiny());
  model.set_factors(0.5f, -0.25f);
  const Tensor z = Tensor::full(device(), {1, 4, 1, 1}, 2);
  EXPECT_NEAR(model.to_latent(z).to_host()[0], 1.125f, 1e-6);
  EXPECT_NEAR(model.from_latent(model.to_latent(z)).to_host()[3], 2, 1e-6);
}

TEST(Autoencoder, StartsWithAQuietPosterior) {
  AutoencoderKL model(tiny());
  auto params = parameters(model);
  allocate(params, device());
  initialise(params, autoencoder_init(), 1);
  damp_log_variance(model);
  const auto posterior = model.encode(op::normal(device(), {1, 3, 8, 8}, 2, 0));
  for (const float x : posterior.logvar.to_host()) EXPECT_NEAR(x, -5, 0.5);
}

TEST(Autoencoder, RefusesWhatDoesNotFit) {
  AutoencoderKL model(tiny());
  randomise(model);
  EXPECT_THROW(model.encode(Tensor::zeros(device(), {1, 3, 5, 4})), Error);
  EXPECT_THROW(model.decode(Tensor::zeros(device(), {1, 3, 2, 2})), Error);
  AutoencoderConfig bad = tiny();
  bad.groups = 3;
  EXPECT_THROW(AutoencoderKL{bad}, Error);
  EXPECT_THROW(infer_autoencoder_config({}), Error);
}

}  // namespace
}  // namespace vkflux
