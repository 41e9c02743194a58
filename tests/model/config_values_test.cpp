// Text encoders and autoencoders whose configs have other values than FLUX.1's, against the public packages.
#include <gtest/gtest.h>

#include "model/load.h"
#include "model/text/clip.h"
#include "model/text/t5.h"
#include "model/vae/autoencoder.h"
#include "tests/harness/expect_error.h"
#include "tests/model/golden_case.h"

namespace vkflux {
namespace {

using test::device;
using test::GoldenCase;

GoldenCase vectors(const std::string& name) {
  return GoldenCase::data("configs/" + name + ".safetensors");
}

TEST(ConfigValues, ActivationsOfClip) {
  for (const char* act :
       {"gelu_new", "gelu_pytorch_tanh", "relu", "silu", "mish", "leaky_relu", "relu6", "relu2"}) {
    const GoldenCase golden = vectors(std::string("clip_") + act);
    const io::NamedTensors file = golden.weights(io::clip_names());
    ClipTextConfig config = infer_clip_config(shapes_of(file));
    apply_clip_json(config, golden.config());
    EXPECT_EQ(config.activation.name(), act);
    ClipText model(config);
    load(parameters(model), file, device());
    const auto out = model.forward(golden.ids("in.input_ids"));
    golden.check("out.last_hidden_state", out.last_hidden_state);
    golden.check("out.pooled", out.pooled);
  }
}

TEST(ConfigValues, FeedForwardsOfT5) {
  for (const char* ff : {"relu", "gated-relu", "gated-silu", "gelu", "gated-gelu_new", "tanh"}) {
    const GoldenCase golden = vectors(std::string("t5_") + ff);
    const io::NamedTensors file = golden.weights(io::t5_names());
    T5Config config = infer_t5_config(shapes_of(file));
    apply_t5_json(config, golden.config());
    EXPECT_EQ(config.gated, std::string(ff).starts_with("gated-")) << ff;
    T5Encoder model(config);
    load(parameters(model), file, device());
    golden.check("out.last_hidden_state", model.forward(golden.ids("in.input_ids")));
    T5Config again = infer_t5_config(shapes_of(file));
    apply_t5_json(again, t5_json(config));
    EXPECT_EQ(again.activation.name(), config.activation.name());
  }
}

TEST(ConfigValues, ConvolutionsAndAttentionOfAutoencoders) {
  for (const char* name : {"vae_quant_conv", "vae_post_quant_conv", "vae_no_mid_attention"}) {
    const GoldenCase golden = vectors(name);
    const io::NamedTensors file = golden.weights(io::vae_names(2));
    AutoencoderConfig config = infer_autoencoder_config(shapes_of(file));
    apply_autoencoder_json(config, golden.config());
    AutoencoderKL model(config);
    load(parameters(model), file, device());
    golden.check("out.mean", model.encode(golden.tensor("in.image")).mean);
    golden.check("out.image", model.decode(golden.tensor("in.z")));
    EXPECT_EQ(autoencoder_json(config, 8)["use_quant_conv"], golden.config()["use_quant_conv"]);
    EXPECT_EQ(autoencoder_json(config, 8)["mid_block_add_attention"],
              golden.config()["mid_block_add_attention"]);
    // What the weights contradict is refused.
    for (const char* key : {"use_quant_conv", "use_post_quant_conv", "mid_block_add_attention"}) {
      io::Json other = golden.config();
      other[key] = !other[key].get<bool>();
      test::expect_error(ErrorCode::format, {key}, [&] { apply_autoencoder_json(config, other); });
    }
  }
}

}  // namespace
}  // namespace vkflux
