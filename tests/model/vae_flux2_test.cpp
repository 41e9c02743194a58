// FLUX.2's autoencoder against diffusers: values, gradients, options, and the names of its files.
#include <gtest/gtest.h>

#include "autograd/ops.h"
#include "model/circular_codec.h"
#include "model/vae/codec.h"
#include "model/vae/load.h"
#include "model/vae/tiling.h"
#include "tests/harness/expect_error.h"
#include "tests/harness/temp_folder.h"
#include "tests/model/golden_case.h"
#include "vk/error.h"

namespace vkflux {
namespace {

using test::device;
using test::expect_error;
using test::GoldenCase;

const std::vector<std::string> kCases{"vae_plain", "vae_eps", "vae_small_decoder", "vae_patch_3",
                                      "vae_patch_1"};

GoldenCase vectors(const std::string& name) {
  return GoldenCase::data("flux2/" + name + ".safetensors");
}

AutoencoderConfig config_of(const GoldenCase& golden) {
  AutoencoderConfig config = infer_autoencoder_config(shapes_of(golden.weights(io::vae_names(2))));
  apply_autoencoder_json(config, golden.config());
  return config;
}

std::shared_ptr<AutoencoderKL> model_of(const GoldenCase& golden) {
  auto model = std::make_shared<AutoencoderKL>(config_of(golden));
  load(parameters(*model), golden.weights(io::vae_names(2)), device());
  return model;
}

TEST(Flux2Autoencoder, ValuesAndGradientsAreThoseOfDiffusers) {
  for (const std::string& name : kCases) {
    SCOPED_TRACE(name);
    const GoldenCase golden = vectors(name);
    const auto model = model_of(golden);
    const Tensor image = golden.tensor("in.image"), latent = golden.tensor("in.latent");
    std::vector<std::pair<std::string, Tensor>> watched{{"grad.in.image", image}, {"grad.in.latent", latent}};
    for (const Param& p : parameters(*model)) {
      for (const auto& [foreign, kind, part] : io::foreign_names(p.name, io::vae_names(2))) {
        if (golden.has("grad." + foreign)) watched.emplace_back("grad." + foreign, *p.tensor);
      }
      if (golden.has("grad." + p.name)) watched.emplace_back("grad." + p.name, *p.tensor);
    }
    EXPECT_EQ(watched.size(), golden.count("grad."));
    Tape tape;
    for (const auto& [grad, leaf] : watched) tape.watch(leaf);
    Tensor encoded, decoded;
    {
      const auto scope = tape.record();
      encoded = model->to_latent(model->encode(image).mean);
      decoded = model->decode(model->from_latent(latent));
    }
    golden.check("out.latent", encoded);
    golden.check("out.image", decoded);
    Grads grads;
    tape.backward({{encoded, golden.tensor("in.cot.latent")}, {decoded, golden.tensor("in.cot.image")}},
                  grads);
    for (const auto& [grad, leaf] : watched) golden.check(grad, grads.of(leaf), test::kGradientTolerance);
  }
}

TEST(Flux2Autoencoder, ConfigsAreReadAndWrittenAsDiffusersDoes) {
  for (const std::string& name : kCases) {
    SCOPED_TRACE(name);
    const GoldenCase golden = vectors(name);
    const AutoencoderConfig config = config_of(golden);
    const io::Json theirs = golden.config(), ours = autoencoder_json(config, 1024);
    for (const auto& [key, value] : ours.items()) {
      if (key == "batch_norm_momentum") continue;  // of training there, which we do otherwise
      EXPECT_EQ(value, theirs.value(key, value)) << key;
    }
    AutoencoderConfig again = infer_autoencoder_config(shapes_of(golden.weights(io::vae_names(2))));
    apply_autoencoder_json(again, ours);
    EXPECT_EQ(again.statistics_eps, config.statistics_eps);
    EXPECT_EQ(config.factor(), 2 * config.patch);
  }
}

TEST(Flux2Autoencoder, RefusesConfigsThatContradictTheWeights) {
  const GoldenCase golden = vectors("vae_plain");
  const auto with = [&](const char* key, const io::Json& value) {
    io::Json json = golden.config();
    json[key] = value;
    AutoencoderConfig config = config_of(golden);
    apply_autoencoder_json(config, json);
    return config;
  };
  for (const auto& [key, value] :
       std::vector<std::pair<const char*, io::Json>>{{"_class_name", "AutoencoderKL"},
                                                     {"patch_size", {4, 1}},
                                                     {"patch_size", {1, 1}},
                                                     {"patch_size", 2},
                                                     {"batch_norm_eps", -0.5},
                                                     {"latent_channels", 4},
                                                     {"block_out_channels", {4, 16}},
                                                     {"decoder_block_out_channels", {6, 12}},
                                                     {"use_quant_conv", false},
                                                     {"use_post_quant_conv", false}})
    expect_error(ErrorCode::format, {key, "vae/config.json"}, [&, &k = key, &v = value] { with(k, v); });
  expect_error(ErrorCode::format, {"batch_norm_eps"}, [&] { with("batch_norm_eps", "nan"); });
  // What says nothing here, or nothing at all.
  for (const char* key :
       {"decoder_block_out_channels", "batch_norm_eps", "patch_size", "batch_norm_momentum"})
    EXPECT_EQ(with(key, nullptr).statistics_eps, 1e-4f) << key;
  EXPECT_EQ(with("decoder_block_out_channels", io::Json::array()).patch, 2);
  EXPECT_EQ(with("force_upcast", true).patch, 2);
  EXPECT_EQ(with("scaling_factor", 0.3).patch, 2);
  AutoencoderConfig plain;
  expect_error(ErrorCode::format, {"bn.running_mean"}, [&] {
    apply_autoencoder_json(plain, {{"_class_name", "AutoencoderKLFlux2"}});
  });
}

TEST(Flux2Autoencoder, CountsThePublishedModels) {
  const auto count_of = [](AutoencoderConfig c, const std::string& half) {
    AutoencoderKL model(c);
    int64_t n = 0;
    for (const Param& p : parameters(model)) n += p.name.starts_with(half) ? p.shape.numel() : 0;
    return n;
  };
  AutoencoderConfig c = autoencoder_of("flux2");
  EXPECT_EQ(count_of(c, "decoder."), 49'620'259);
  EXPECT_EQ(count_of(c, "encoder."), 34'425'856);
  EXPECT_EQ(c.factor(), 16);
  EXPECT_EQ(c.folded_channels(), 128);
  c.decoder_widths = {96, 192, 384, 384};
  EXPECT_EQ(count_of(c, "decoder."), 27'947'235);
}

TEST(Flux2Autoencoder, VariancesThatCannotBeAreFoundWhereTheCodecIsMade) {
  const auto model = model_of(vectors("vae_plain"));
  std::vector<float> mean(12), var(12, 1.0f);
  EXPECT_NO_THROW(model->set_statistics(device(), mean, var));
  for (const float bad : {-1.0f, std::numeric_limits<float>::infinity()}) {
    var[5] = bad;
    expect_error(ErrorCode::format, {"running_var[5]"}, [&] { model->set_statistics(device(), mean, var); });
  }
  expect_error(ErrorCode::format, {"running_var[5]"}, [&] { AutoencoderCodec{model}; });
}

TEST(Flux2Autoencoder, TilesAndWrapsByItsOwnCells) {
  const auto model = model_of(vectors("vae_plain"));
  const auto codec = std::make_shared<AutoencoderCodec>(model);
  const Tensor latent = op::normal(device(), {1, 12, 10, 14}, 1, 0);
  const auto in_tiles = tiled(codec, model->config().factor(), {6, 8, 0.5});
  const Tensor whole = codec->decode(latent);
  ASSERT_EQ(whole.shape(), (Shape{1, 3, 40, 56}));
  EXPECT_EQ(in_tiles->decode(latent).shape(), whole.shape());
  EXPECT_EQ(in_tiles->encode(whole).shape(), latent.shape());
  const CircularCodec circular(codec, true, false);
  EXPECT_EQ(circular.decode(latent).shape(), whole.shape());
  EXPECT_EQ(circular.encode(whole).shape(), latent.shape());
  expect_error(ErrorCode::invalid_argument, {"multiples of 4"}, [&] {
    codec->encode(Tensor::zeros(device(), {1, 3, 8, 6}));
  });
}

/// The weights of a case under other names, or without some: what `name` gives, "" leaves out.
std::string file_of(const test::TempFolder& folder, const std::string& one,
                    const std::function<std::string(const std::string&)>& name,
                    const std::string& file = "ae.safetensors") {
  const io::SafetensorsFile source(std::string(VKFLUX_SOURCE_DIR) + "/tests/data/flux2/" + one +
                                   ".safetensors");
  std::vector<io::TensorData> out;
  for (const auto& [key, info] : source.tensors()) {
    const std::string theirs = key.starts_with("w.") ? name(key.substr(2)) : "";
    if (!theirs.empty()) out.push_back({theirs, info.dtype, info.shape, source.read_bytes(key)});
  }
  io::write_safetensors(folder.file(file), out);
  return folder.file(file);
}

/// BFL's name, which is ours, of what diffusers calls otherwise.
std::string ours(const std::string& name) {
  static const io::NameTable table = io::vae_names(2);
  for (const io::NameRule& rule : table.rules) {
    if (const std::string found = io::rename(name, rule.foreign, rule.ours); !found.empty()) return found;
  }
  return name;
}

std::string without(std::string name, const std::string& prefix) {
  return name.starts_with(prefix) ? name.substr(prefix.size()) : name;
}

TEST(Flux2Autoencoder, EveryLayoutOfItsFiles) {
  const test::TempFolder folder;
  const GoldenCase golden = vectors("vae_plain");
  const auto whole = [](const std::string& n) { return n; };
  const std::vector<std::function<std::string(const std::string&)>> layouts{
      whole, ours, [](const std::string& n) { return "vae." + ours(n); },
      [](const std::string& n) { return "first_stage_model." + n; },
      // 1x1 convolutions under both layouts' names.
      [](const std::string& n) { return n.starts_with("quant_conv") ? "encoder." + n : n; },
      [](const std::string& n) {
        return n.find("quant_conv") == 0 || n.find("post_quant") == 0 ? n : ours(n);
      }};
  for (const auto& layout : layouts) {
    const io::SafetensorsFile file(file_of(folder, "vae_plain", layout));
    const io::NamedTensors named(file, io::vae_names(autoencoder_levels(file)));
    AutoencoderKL model(infer_autoencoder_config(shapes_of(named)));
    load(parameters(model), named, device());
    EXPECT_EQ(model.config().patch, 2);
    EXPECT_TRUE(flux2_autoencoder_component().describe(file, io::Json()));
    EXPECT_FALSE(autoencoder_component().describe(file, io::Json()));
  }
}

TEST(Flux2Autoencoder, FilesWithADecoderAlone) {
  const test::TempFolder folder;
  const GoldenCase golden = vectors("vae_small_decoder");
  const auto bare = [](const std::string& n, bool bfl) -> std::string {
    if (n.starts_with("encoder.") || n.starts_with("quant_conv") || n.ends_with("batches_tracked")) return "";
    return without(bfl ? ours(n) : n, "decoder.");
  };
  for (const bool bfl : {true, false}) {
    const io::SafetensorsFile file(
        file_of(folder, "vae_small_decoder", [&](const std::string& n) { return bare(n, bfl); }));
    const auto described = flux2_autoencoder_component().describe(file, io::Json());
    ASSERT_TRUE(described);
    EXPECT_EQ((*described)["decoder_only"], true);
    EXPECT_FALSE(autoencoder_component().describe(file, io::Json()));
    const io::NamedTensors named(file, io::vae_names(autoencoder_levels(file)));
    AutoencoderConfig config = infer_autoencoder_config(shapes_of(named));
    apply_autoencoder_json(config, golden.config());
    const auto model = std::make_shared<AutoencoderKL>(config);
    load(parameters(*model), named, device());
    const AutoencoderCodec codec(model);
    golden.check("out.image", codec.decode(golden.tensor("in.latent")));
    expect_error(ErrorCode::unsupported, {"decoder only"}, [&] {
      codec.encode(Tensor::zeros(device(), {1, 3, 8, 8}));
    });
  }
  // Without statistics a file of 32 channels is still known for what it is.
  const auto params = [](const AutoencoderConfig& c) {
    AutoencoderKL model(c);
    std::map<std::string, Shape> out;
    for (const Param& p : parameters(model)) out.emplace(p.name, p.shape);
    return out;
  };
  AutoencoderConfig config = autoencoder_of("flux2");
  config.encoder_widths.clear();
  config.statistics = false;
  config.patch = 1;
  const AutoencoderConfig inferred = infer_autoencoder_config(params(config));
  EXPECT_FALSE(inferred.has_encoder());
  expect_error(ErrorCode::format, {"bn.running_mean"}, [&] { need_statistics(inferred); });
}

}  // namespace
}  // namespace vkflux
