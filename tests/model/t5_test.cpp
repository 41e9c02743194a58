#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "autograd/ops.h"
#include "model/text/t5.h"
#include "tests/model/golden_case.h"
#include "vk/error.h"

namespace vkflux {
namespace {

using test::device;
using test::GoldenCase;

TEST(T5Encoder, ForwardAndGradients) {
  const GoldenCase golden = GoldenCase::data("t5_encoder.safetensors");
  const io::NamedTensors file = golden.weights(io::t5_names());
  T5Config config = infer_t5_config(shapes_of(file));
  apply_t5_json(config, golden.config());
  EXPECT_EQ(config.head_dim, 8);
  T5Encoder model(config);
  const auto params = parameters(model);
  load(params, file, device());
  Tape tape;
  for (const Param& p : params) tape.watch(*p.tensor);
  Trace trace;
  Tensor out;
  {
    const auto scope = tape.record();
    out = model.forward(golden.ids("in.input_ids"), &trace);
  }
  for (const auto& [name, value] : trace) golden.check("mid." + name, value);
  golden.check("out.last_hidden_state", out);
  const Grads grads = tape.backward(out, golden.tensor("in.loss_cotangent.last_hidden_state"));
  golden.check_gradients(params, grads);
  golden.check("out.long.last_hidden_state", model.forward(golden.ids("in.long.input_ids")));
}

TEST(T5Encoder, BucketsMatchTheReference) {
  const GoldenCase golden = GoldenCase::data("t5_encoder.safetensors");
  const auto relative = golden.ids("in.long.relative_position")[0], want = golden.ids("mid.long.bucket")[0];
  for (size_t i = 0; i < relative.size(); ++i) EXPECT_EQ(t5_bucket(relative[i]), want[i]) << relative[i];
}

TEST(T5Encoder, CountsThePublishedModel) {
  T5Encoder model(T5Config{});
  EXPECT_EQ(count(parameters(model)), 4'762'310'656);
}

// Activations are f32 whatever the weights are: what overflows f16 in the feed-forward of the published model
// doesn't here.
TEST(T5Encoder, LargeActivationsDoNotOverflow) {
  const GoldenCase golden = GoldenCase::data("t5_encoder.safetensors");
  const io::NamedTensors file = golden.weights(io::t5_names());
  T5Config config = infer_t5_config(shapes_of(file));
  apply_t5_json(config, golden.config());
  const auto run = [&](DType dtype, float& most) {
    T5Encoder model(config);
    const auto params = parameters(model);
    load(params, file, device(), dtype, t5_storage());
    for (const Param& p : params) {
      // Rows of 16-bit weights can't be scaled in place; the norms before them can.
      if (p.name.find("layer.1.layer_norm") != std::string::npos) *p.tensor = op::affine(*p.tensor, 3000);
    }
    Trace trace;
    const Tensor out = model.forward(golden.ids("in.input_ids"), &trace);
    most = 0;
    for (const auto& [name, value] : trace) {
      for (const float v : value.to_host()) most = std::max(most, std::abs(v));
    }
    EXPECT_TRUE(is_finite(out));
    return out.to_host();
  };
  float most = 0, most16 = 0;
  const std::vector<float> want = run(DType::f32, most), got = run(DType::f16, most16);
  EXPECT_GT(most, 65504.0f) << "the test must leave the range of f16";
  EXPECT_GT(most16, 65504.0f);
  for (size_t i = 0; i < want.size(); ++i) EXPECT_NEAR(got[i], want[i], 0.02 * (1 + std::abs(want[i])));
}

TEST(T5Encoder, ReadsItsConfig) {
  T5Config c;
  c.max_distance = 64;
  T5Config d;
  apply_t5_json(d, t5_json(c));
  EXPECT_EQ(d.max_distance, 64);
  EXPECT_THROW(apply_t5_json(d, {{"feed_forward_proj", "relu"}}), Error);
  EXPECT_THROW(apply_t5_json(d, {{"relative_attention_max_distance", 2}}), Error);
  EXPECT_THROW(apply_t5_json(d, {{"dense_act_fn", "glue"}}), Error);
  EXPECT_THROW(apply_t5_json(d, {{"is_gated_act", false}}), Error);
  EXPECT_THROW(apply_t5_json(d, {{"d_model", 8}}), Error);
  T5Config e;
  apply_t5_json(e, {{"dense_act_fn", "relu"}});  // which wins over the whole name
  EXPECT_EQ(e.activation.name(), "relu");
  EXPECT_THROW(apply_t5_json(d, {{"is_decoder", true}}), Error);
  EXPECT_EQ(t5_json(c)["dtype"], "float32");  // or f16 files would be computed in f16
  EXPECT_THROW(infer_t5_config({}), Error);
}

TEST(T5Encoder, SixteenBitMatricesStayClose) {
  const GoldenCase golden = GoldenCase::data("t5_encoder.safetensors");
  const io::NamedTensors file = golden.weights(io::t5_names());
  for (const DType dtype : {DType::f16, DType::bf16}) {
    T5Encoder model(infer_t5_config(shapes_of(file)));
    load(parameters(model), file, device(), dtype);
    golden.check("out.last_hidden_state", model.forward(golden.ids("in.input_ids")), 3e-2);
  }
}

}  // namespace
}  // namespace vkflux
