// Decoder-only text encoders against transformers (tests/data/decoders).
#include "model/text/decoder.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "autograd/ops.h"
#include "tests/harness/expect_error.h"
#include "tests/model/golden_case.h"
#include "vk/error.h"

namespace vkflux {
namespace {

using test::device;
using test::GoldenCase;

const std::string kData = std::string(VKFLUX_SOURCE_DIR) + "/tests/data/decoders/";

DecoderTokens tokens_of(const GoldenCase& golden, const std::string& padding) {
  DecoderTokens t{golden.ids("in." + padding + ".input_ids"), {}, 0};
  for (const auto& row : golden.ids("in." + padding + ".mask")) t.mask.emplace_back(row.begin(), row.end());
  return t;
}

DecoderConfig config_of(const GoldenCase& golden, const io::NamedTensors& file) {
  DecoderConfig c = infer_decoder_config(shapes_of(file));
  apply_decoder_json(c, golden.config());
  return c;
}

std::vector<int64_t> all_states(const DecoderConfig& c) {
  std::vector<int64_t> out(static_cast<size_t>(c.layers) + 1);
  std::iota(out.begin(), out.end(), 0);
  return out;
}

io::NameTable names_of(const std::string& path, int64_t layers = -1) {
  return io::decoder_names(*io::open_tensors(path), layers);
}

class DecoderVectors : public ::testing::TestWithParam<const char*> {
 protected:
  const std::string path_ = kData + GetParam() + ".safetensors";
  const GoldenCase golden_{path_};
  const io::NamedTensors file_ = golden_.weights(names_of(path_));
};

TEST_P(DecoderVectors, EveryStateWithEveryPadding) {
  const DecoderConfig config = config_of(golden_, file_);
  DecoderLm model(config);
  load(parameters(model), file_, device());
  for (const char* padding : {"none", "left", "right", "holes"}) {
    const DecoderTokens tokens = tokens_of(golden_, padding);
    const std::vector<Tensor> got = model.forward(tokens, all_states(config));
    std::vector<Tensor> stacked;
    for (const Tensor& t : got) stacked.push_back(op::reshape(t, {1, t.dim(0), t.dim(1), t.dim(2)}));
    golden_.check(std::string("out.") + padding + ".hidden", op::concat(stacked, 0));
  }
}

TEST_P(DecoderVectors, OnlyTheLayersThatAreNeededAreRead) {
  const DecoderConfig config = config_of(golden_, file_);
  const io::NamedTensors part = golden_.weights(names_of(path_, 2));
  EXPECT_FALSE(part.has("model.norm.weight"));
  EXPECT_FALSE(part.has("model.layers.2.mlp.up_proj.weight"));
  DecoderLm model(config, 2);
  load(parameters(model), part, device());
  const DecoderTokens tokens = tokens_of(golden_, "left");
  const std::vector<float> all = golden_.values("out.left.hidden");
  // In any order, and more than once.
  const std::vector<int64_t> wanted{2, 0, 2};
  const std::vector<Tensor> got = model.forward(tokens, wanted);
  for (size_t i = 0; i < wanted.size(); ++i) {
    const auto n = got[i].numel();
    const auto from = all.begin() + wanted[i] * n;
    test::expect_close("state", got[i].to_host(), {from, from + n}, test::kOutputTolerance);
  }
  test::expect_error(ErrorCode::invalid_argument, {"hidden state 3", "2 layers"},
                     [&] { model.forward(tokens, {3}); });
}

TEST_P(DecoderVectors, SixteenBitMatricesStayClose) {
  const DecoderConfig config = config_of(golden_, file_);
  for (const DType dtype : {DType::f16, DType::bf16}) {
    DecoderLm model(config);
    load(parameters(model), file_, device(), dtype);
    const Tensor got = model.forward(tokens_of(golden_, "none"), {2})[0];
    const std::vector<float> all = golden_.values("out.none.hidden");
    const auto from = all.begin() + 2 * got.numel();
    test::expect_close("state 2", got.to_host(), {from, from + got.numel()}, 3e-2);
  }
}

TEST_P(DecoderVectors, TheConfigComesBack) {
  const DecoderConfig config = config_of(golden_, file_);
  DecoderConfig again = infer_decoder_config(shapes_of(file_));
  apply_decoder_json(again, decoder_json(config));
  EXPECT_EQ(decoder_json(again), decoder_json(config));
  EXPECT_EQ(again.theta, config.theta);
  EXPECT_EQ(again.heads, config.heads);
}

INSTANTIATE_TEST_SUITE_P(Models, DecoderVectors,
                         ::testing::Values("qwen3_grouped", "qwen3_windows", "qwen3_biases",
                                           "mistral_grouped", "mistral_linear", "mistral_window"));

TEST(DecoderGradients, MatchTheReference) {
  for (const char* name : {"qwen3_grouped", "mistral_grouped"}) {
    const std::string path = kData + name + ".safetensors";
    const GoldenCase golden(path);
    const io::NamedTensors file = golden.weights(names_of(path));
    const DecoderConfig config = config_of(golden, file);
    DecoderLm model(config);
    const auto params = parameters(model);
    load(params, file, device());
    Tape tape;
    for (const Param& p : params) tape.watch(*p.tensor);
    Tensor loss;
    {
      const auto scope = tape.record();
      const std::vector<Tensor> states = model.forward(tokens_of(golden, "left"), all_states(config));
      const Tensor cotangent = golden.tensor("in.cotangent");
      for (size_t i = 0; i < states.size(); ++i) {
        const Tensor c = op::narrow(cotangent, 0, static_cast<int64_t>(i), 1);
        const Tensor part = op::sum_all(op::mul(states[i], op::reshape(c, states[i].shape())));
        loss = loss.defined() ? op::add(loss, part) : part;
      }
    }
    golden.check_gradients(params, tape.backward(loss));
  }
}

TEST(Decoder, CountsThePublishedModels) {
  const auto counted = [](const DecoderConfig& c, int64_t layers = -1) {
    DecoderLm model(c, layers);
    return count(parameters(model));
  };
  EXPECT_EQ(counted(qwen3_4b_config()), 4'022'468'096);
  EXPECT_EQ(counted(qwen3_8b_config()), 8'190'735'360 - 151936 * 4096);  // without its output head
  EXPECT_EQ(counted(mistral_small_config()), 23'572'403'200 - 131072 * 5120);
  const int64_t layer = 5120 * (4096 + 1024 + 1024 + 4096 + 3 * 32768 + 2);
  EXPECT_EQ(counted(mistral_small_config(), 30), 131072 * 5120 + 30 * layer);
}

}  // namespace
}  // namespace vkflux
