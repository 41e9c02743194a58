// LoRA files of FLUX.2 in every dialect against what diffusers, peft and the dialects' formulas make of them
// (tests/data/lora/make_flux2_lora_vectors.py), beside weights and merged into them.
#include <gtest/gtest.h>

#include "model/flux2/lora.h"
#include "model/flux2/rope.h"
#include "model/flux2/transformer.h"
#include "model/lora/lora.h"
#include "tests/model/golden_case.h"

namespace vkflux {
namespace {

using test::device;
using test::GoldenCase;

const std::string kFolder = std::string(VKFLUX_SOURCE_DIR) + "/tests/data/lora/flux2_";

class Flux2Lora : public ::testing::Test {
 protected:
  const GoldenCase golden = GoldenCase::data("flux2/dev.safetensors");
  const io::NamedTensors weights = golden.weights(io::flux2_names());
  const Flux2Config config = infer_flux2_config(shapes_of(weights));

  /// The velocity of all image tokens, the references' too.
  Tensor out(Flux2& model) const {
    PassInputs in;
    in.x = golden.tensor("in.hidden_states");
    in.condition = {{"txt", golden.tensor("in.encoder_hidden_states")}};
    in.t = golden.tensor("in.timestep");
    in.guidance = golden.tensor("in.guidance");
    TokenLayout tokens;
    tokens.text = 5;
    tokens.rows = 2;
    tokens.columns = 4;
    tokens.references = {{3, 2, 10}, {1, 2, 20}};
    in.positions = rope_table(device(), flux2_ids(tokens), 1, config.axes_dim, config.theta);
    return model.forward(in);
  }
};

TEST_F(Flux2Lora, DrawsWhatTheReferencesDraw) {
  const GoldenCase cases(kFolder + "cases.safetensors");
  const io::Json list = io::parse_json(cases.metadata("cases"), "cases");
  ASSERT_EQ(list.size(), 6u);
  Flux2 beside(config);  // attach() takes the changes of the case before away
  load(parameters(beside), weights, device());
  for (const auto& [name, c] : list.items()) {
    SCOPED_TRACE(name);
    std::vector<std::string> reports;
    const LoraSet loras({{kFolder + name + ".safetensors", c.at("strength").get<float>()}},
                        {flux2_lora_component(config)},
                        [&](const std::string& text) { reports.push_back(text); });
    ASSERT_EQ(reports.size(), 1u);
    EXPECT_EQ(reports[0].find("not used"), std::string::npos) << reports[0];
    loras.attach("transformer", beside);
    cases.check("out." + name, out(beside), 1e-4);
    Flux2 merged(config);
    load(parameters(merged), weights, device());
    for (const Param& p : parameters(merged)) {
      std::vector<float> values = p.tensor->to_host();
      if (loras.merge("transformer", p.name, values))
        *p.tensor = Tensor::from(device(), std::span<const float>(values), p.shape);
    }
    cases.check("out." + name, out(merged), 1e-4);
  }
}

TEST_F(Flux2Lora, PackedWeightsTakeThemToo) {
  const LoraSet loras({{kFolder + "kohya.safetensors", 1}}, {flux2_lora_component(config)});
  std::vector<std::vector<float>> results;
  for (const DType type : {DType::f32, DType::f16, DType::q8_0}) {
    Flux2 model(config);
    load(parameters(model), weights, device(), type, flux2_storage());
    loras.attach("transformer", model);
    results.push_back(out(model).to_host());
  }
  test::expect_close("f16", results[1], results[0], 5e-3);
  test::expect_close("q8_0", results[2], results[0], 0.06);
}

}  // namespace
}  // namespace vkflux
