// The published models' widths at a depth of one, against diffusers and transformers: what tiny models can't
// show, such as sums over 15360 values, 24 heads of 128 and tables of 32128 rows.
#include <gtest/gtest.h>

#include <memory>

#include "autograd/ops.h"
#include "model/flux/rope.h"
#include "model/flux/transformer.h"
#include "model/flux2/transformer.h"
#include "model/text/clip.h"
#include "model/text/t5.h"
#include "model/vae/autoencoder.h"
#include "tests/harness/generated_weights.h"
#include "tests/model/golden_case.h"

namespace vkflux {
namespace {

using test::device;
using test::GoldenCase;

class FullWidth : public ::testing::Test {
 protected:
  explicit FullWidth(const char* name = "full_width.safetensors") : golden(GoldenCase::data(name)) {}
  const GoldenCase golden;

  /// The weights of a part; the reference had the same.
  std::unique_ptr<test::GeneratedWeights> weights(const std::string& part) const {
    const io::Json made = io::parse_json(golden.metadata("parts"), "parts").at(part);
    auto source = std::make_unique<test::GeneratedWeights>(std::stoull(golden.metadata("seed")), part,
                                                           made.at("shapes"), made.value("significant", 8));
    EXPECT_EQ(std::to_string(source->sum_of_bits()), made.at("bits").get<std::string>());
    return source;
  }
};

TEST_F(FullWidth, Transformer) {
  const auto source = weights("transformer");
  const io::NamedTensors file(*source, io::flux1_names());
  const Flux1Config config = infer_flux1_config(shapes_of(file));
  EXPECT_EQ(config.hidden, 3072);
  EXPECT_EQ(config.heads, 24);
  PassInputs in;
  in.x = golden.tensor("in.x");
  in.condition = {{"txt", golden.tensor("in.txt")}, {"y", golden.tensor("in.y")}};
  in.t = Tensor::full(device(), {1}, 0.7f);
  in.guidance = Tensor::full(device(), {1}, 3.5f);
  in.positions = rope_table(device(), flux1_ids(6, 4, 5), 1, config.axes_dim, config.theta);
  // f32 would be 2 GB, which is all that some of lavapipe's releases have.
  for (const DType type : {DType::bf16, DType::f16}) {
    SCOPED_TRACE(name(type));
    Flux1 model(config);
    load(parameters(model), file, device(), type, flux1_storage());
    golden.check("out.velocity", model.forward(in));
    device().stream().sync();
  }
}

TEST_F(FullWidth, T5) {
  const auto source = weights("t5");
  const io::NamedTensors file(*source, io::t5_names());
  const T5Config config = infer_t5_config(shapes_of(file));
  EXPECT_EQ(config.heads, 64);
  T5Encoder model(config);
  load(parameters(model), file, device(), DType::bf16, t5_storage());
  const std::vector<float> state = model.forward(golden.ids("in.t5_ids")).to_host();
  std::vector<float> sampled;
  for (size_t token = 0; token < 11; ++token) {
    for (size_t channel = 0; channel < 4096; channel += 7) sampled.push_back(state[token * 4096 + channel]);
  }
  test::expect_close("out.t5", sampled, golden.values("out.t5"), test::kOutputTolerance);
}

TEST_F(FullWidth, Clip) {
  const auto source = weights("clip");
  const io::NamedTensors file(*source, io::clip_names());
  ClipText model(infer_clip_config(shapes_of(file)));
  load(parameters(model), file, device(), DType::bf16, clip_storage());
  golden.check("out.clip", model.forward(golden.ids("in.clip_ids")).pooled);
}

TEST_F(FullWidth, Autoencoder) {
  const auto source = weights("autoencoder");
  const io::NamedTensors file(*source, io::vae_names(4));
  AutoencoderKL model(infer_autoencoder_config(shapes_of(file)));
  load(parameters(model), file, device());
  golden.check("out.mean", model.encode(golden.tensor("in.picture")).mean);
  golden.check("out.decoded", model.decode(golden.tensor("in.latent")));
}

class FullWidthFlux2 : public FullWidth {
 protected:
  FullWidthFlux2() : FullWidth("full_width_flux2.safetensors") {}

  /// The velocity of the file's inputs, with every block's weights on the device while it runs, so that less
  /// than 2 GB are.
  Tensor velocity(const std::string& part, const io::NamedTensors& file, DType type,
                  const StorageRules& rules) const {
    Flux2 model(infer_flux2_config(shapes_of(file)));
    const std::vector<Param> params = parameters(model);
    const auto load_block = [&](const std::string& block) {
      std::vector<Param> its;
      for (const Param& p : params) {
        if (p.name.starts_with(block)) its.push_back(p);
      }
      load_checked(its, file, device(), type, rules);
      return its;
    };
    vkflux::check(params, file);
    for (const char* always :
         {"img_in.", "txt_in.", "time_in.", "guidance_in.", "final_layer.", "double_stream", "single_stream"})
      load_block(always);
    PassInputs in;
    const Tensor tokens = golden.tensor("in." + part + ".x");
    in.x = op::clone(tokens.slice(1, 0, 6));
    in.condition = {{"txt", golden.tensor("in." + part + ".txt")},
                    {kReferenceTokens, op::clone(tokens.slice(1, 6, 2))}};
    in.t = Tensor::full(device(), {1}, 0.75f);
    in.guidance = Tensor::full(device(), {1}, 4.0f);
    in.tokens.rows = 2;
    in.tokens.columns = 3;
    in.tokens.references = {{1, 2, 10}};
    model.prepare(in);
    const std::unique_ptr<Pass> pass = model.begin(in);
    for (size_t i = 0; i < model.parts().size(); ++i) {
      const std::vector<Param> block = load_block(model.parts()[i].name + ".");
      model.run(i, *pass);
      device().stream().sync();
      for (const Param& p : block) *p.tensor = {};
    }
    return model.finish(*pass);
  }
};

TEST_F(FullWidthFlux2, Klein4B) {
  const auto source = weights("klein");
  const io::NamedTensors file(*source, io::flux2_names());
  golden.check("out.klein", velocity("klein", file, DType::bf16, flux2_storage()));
}

// In fp8, which holds these weights as they are; nothing is excepted from it.
TEST_F(FullWidthFlux2, Dev) {
  const auto source = weights("dev");
  const io::NamedTensors file(*source, io::flux2_names());
  golden.check("out.dev", velocity("dev", file, DType::f8_e4m3, {}));
}

}  // namespace
}  // namespace vkflux
