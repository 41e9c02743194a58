#include <gtest/gtest.h>

#include "autograd/ops.h"
#include "model/text/clip.h"
#include "tests/harness/temp_folder.h"
#include "tests/model/golden_case.h"
#include "vk/error.h"

namespace vkflux {
namespace {

using test::device;
using test::GoldenCase;

class ClipGolden : public testing::TestWithParam<const char*> {};

TEST_P(ClipGolden, ForwardAndGradients) {
  const GoldenCase golden = GoldenCase::data(GetParam());
  const io::NamedTensors file = golden.weights(io::clip_names());
  ClipTextConfig config = infer_clip_config(shapes_of(file));
  apply_clip_json(config, golden.config());
  ClipText model(config);
  const auto params = parameters(model);
  load(params, file, device());
  Tape tape;
  for (const Param& p : params) tape.watch(*p.tensor);
  Trace trace;
  ClipText::Output out;
  {
    const auto scope = tape.record();
    out = model.forward(golden.ids("in.input_ids"), &trace);
  }
  for (const auto& [name, value] : trace) {
    if (golden.has("mid." + name)) golden.check("mid." + name, value);
  }
  golden.check("out.last_hidden_state", out.last_hidden_state);
  golden.check("out.pooled", out.pooled);
  if (!golden.has("in.loss_cotangent.pooled")) return;
  Grads grads;
  tape.backward({{out.last_hidden_state, golden.tensor("in.loss_cotangent.last_hidden_state")},
                 {out.pooled, golden.tensor("in.loss_cotangent.pooled")}},
                grads);
  golden.check_gradients(params, grads);
}

INSTANTIATE_TEST_SUITE_P(Vectors, ClipGolden,
                         testing::Values("clip_text.safetensors", "clip_text_gelu.safetensors"));

// The text model alone, as transformers 5 saves it.
TEST(ClipText, ReadsNamesWithoutThePrefix) {
  const test::TempFolder folder;
  const GoldenCase golden = GoldenCase::data("clip_text.safetensors");
  const io::SafetensorsFile file(std::string(VKFLUX_SOURCE_DIR) + "/tests/data/clip_text.safetensors");
  const std::string prefix = "w.text_model.";
  std::vector<io::TensorData> bare;
  for (const auto& [name, info] : file.tensors()) {
    if (name.starts_with(prefix))
      bare.push_back({name.substr(prefix.size()), info.dtype, info.shape, file.read_bytes(name)});
  }
  io::write_safetensors(folder.file("bare.safetensors"), bare);
  const auto source = io::open_tensors(folder.file("bare.safetensors"));
  const io::NamedTensors named(*source, io::clip_names()), wanted = golden.weights(io::clip_names());
  EXPECT_EQ(named.names(), wanted.names());
  ClipTextConfig config = infer_clip_config(shapes_of(named));
  apply_clip_json(config, golden.config());
  ClipText model(config);
  load(parameters(model), named, device());
  golden.check("out.pooled", model.forward(golden.ids("in.input_ids")).pooled);
  // What is written keeps its names.
  save(parameters(model), folder.file("again.safetensors"), io::clip_names(), io::FileDType::f32);
  EXPECT_TRUE(io::SafetensorsFile(folder.file("again.safetensors")).has("text_model.final_layer_norm.bias"));
}

TEST(ClipText, CountsThePublishedModel) {
  ClipText model(ClipTextConfig{});
  EXPECT_EQ(count(parameters(model)), 123'060'480);
}

TEST(ClipText, ReadsItsConfig) {
  ClipTextConfig c;
  c.heads = 8;
  c.eps = 1e-6f;
  c.activation = *Activation::named("gelu");
  ClipTextConfig d;
  apply_clip_json(d, clip_json(c));
  EXPECT_EQ(d.heads, 8);
  EXPECT_EQ(d.activation.name(), "gelu");
  EXPECT_FLOAT_EQ(d.eps, 1e-6f);
  EXPECT_EQ(d.eos, 49407);
  apply_clip_json(d, {{"eos_token_id", 2}});
  EXPECT_EQ(d.eos, 49407);
  EXPECT_EQ(clip_json(c)["dtype"], "float32");  // or f16 files would be computed in f16
  EXPECT_THROW(apply_clip_json(d, {{"hidden_act", "swash"}}), Error);
  EXPECT_THROW(apply_clip_json(d, {{"hidden_size", 4}}), Error);
  apply_clip_json(d, {{"text_config", {{"hidden_act", "mish"}}}, {"hidden_act", "gelu"}});
  EXPECT_EQ(d.activation.name(), "mish");
  EXPECT_THROW(apply_clip_json(d, {{"num_attention_heads", 7}}), Error);
}

TEST(ClipText, RefusesBadTokens) {
  ClipTextConfig c;
  c.vocab = 10;
  c.positions = 4;
  c.width = 8;
  c.layers = 1;
  c.heads = 2;
  c.mlp = 8;
  c.eos = 9;
  ClipText model(c);
  auto params = parameters(model);
  allocate(params, device());
  initialise(params, clip_init(), 0);
  EXPECT_EQ(model.forward({{1, 9, 9}}).pooled.shape(), (Shape{1, 8}));
  EXPECT_THROW(model.forward({{1, 2, 3}}), Error);   // no end
  EXPECT_THROW(model.forward({{1, 10, 9}}), Error);  // outside the vocabulary
  EXPECT_THROW(model.forward({{1, -1, 9}}), Error);
  EXPECT_THROW(model.forward({{1, 2, 3, 4, 9}}), Error);  // too long
  EXPECT_THROW(model.forward({{1, 9}, {1, 2, 9}}), Error);
  EXPECT_THROW(model.forward({}), Error);
}

}  // namespace
}  // namespace vkflux
