// LoRA files in whole pictures: replay, packed weights, text encoders, what is said about them.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "model/pipeline.h"
#include "tests/harness/expect_error.h"
#include "tests/harness/gpu.h"
#include "tests/harness/temp_folder.h"
#include "tests/harness/tiny_pipeline.h"

namespace vkflux {
namespace {

using test::device;

class LoraPipeline : public testing::Test {
 protected:
  /// A pair for a module of `out` x `in` values.
  void add(const std::string& module, int64_t out, int64_t in) {
    const auto numbers = [&](int64_t n) {
      std::vector<float> v(static_cast<size_t>(n));
      for (size_t i = 0; i < v.size(); ++i)
        v[i] = 0.2f * std::sin(static_cast<float>(7 * i + tensors_.size()));
      return v;
    };
    tensors_.push_back(io::tensor_data(module + ".lora_down.weight", {2, in}, numbers(2 * in)));
    tensors_.push_back(io::tensor_data(module + ".lora_up.weight", {out, 2}, numbers(out * 2)));
  }
  std::string file() {
    io::write_safetensors(folder_.file("style.safetensors"), tensors_);
    return folder_.file("style.safetensors");
  }
  void add_transformer() {
    add("lora_unet_double_blocks_0_img_attn_qkv", 48, 16);
    add("lora_unet_double_blocks_0_txt_mlp_0", 24, 16);
    add("lora_unet_single_blocks_1_linear1", 72, 16);
    add("lora_unet_single_blocks_2_linear2", 16, 40);
    add("lora_unet_final_layer_adaLN_modulation_1", 32, 16);
  }
  std::vector<float> latents(const std::vector<LoraUse>& loras, DType weights = DType::f32,
                             bool replay = true) {
    ModelOptions options;
    options.loras = loras;
    options.weights = weights;
    options.remark = [&](const std::string& text) { remarks_.push_back(text); };
    const auto pipeline = Pipeline::load(device(), test::tiny_pipeline(), options);
    GenerateRequest r;
    r.prompts = {"a photo of a cat"};
    r.replay = replay;
    const auto job = pipeline->generate(r);
    while (job->step()) {
    }
    return job->result().latents.to_host();
  }
  bool remarked(const std::string& words) const {
    return std::any_of(remarks_.begin(), remarks_.end(),
                       [&](const auto& r) { return r.find(words) != r.npos; });
  }
  test::TempFolder folder_;
  std::vector<io::TensorData> tensors_;
  std::vector<std::string> remarks_;
};

TEST_F(LoraPipeline, ReplayedPicturesAreThoseOfEagerPasses) {
  add_transformer();
  const std::string f = file();
  const std::vector<float> plain = latents({}), eager = latents({{f, 0.8f}}, DType::f32, false);
  EXPECT_EQ(latents({{f, 0.8f}}), eager);
  EXPECT_NE(eager, plain);
  EXPECT_EQ(latents({{f, 0}}), plain);
  EXPECT_TRUE(remarked("10 of 10 tensors match, 5 modules"));
  EXPECT_TRUE(remarked("transformer: LoRA takes"));
}

TEST_F(LoraPipeline, PackedWeightsTakeIt) {
  add_transformer();
  const std::vector<float> f32 = latents({{file(), 0.8f}}),
                           packed = latents({{file(), 0.8f}}, DType::f8_e4m3);
  double error = 0, size = 0;
  for (size_t i = 0; i < f32.size(); ++i) {
    error += (f32[i] - packed[i]) * (f32[i] - packed[i]);
    size += f32[i] * f32[i];
  }
  EXPECT_LT(std::sqrt(error / size), 0.1);
}

TEST_F(LoraPipeline, TextEncodersTakeTheirs) {
  add("lora_te1_text_model_encoder_layers_0_self_attn_q_proj", 16, 16);
  const std::vector<float> plain = latents({}), clip = latents({{file(), 1}});
  EXPECT_NE(clip, plain);
  add("lora_te2_encoder_block_0_layer_1_DenseReluDense_wo", 12, 16);
  EXPECT_NE(latents({{file(), 1}}), clip);
  EXPECT_TRUE(remarked("text_encoder_2: LoRA takes"));
}

TEST_F(LoraPipeline, BadOnesStopBeforeAnythingIsDrawn) {
  add("lora_unet_double_blocks_0_img_attn_qkv", 48, 17);
  const std::string f = file();
  test::expect_error(ErrorCode::format, {f, "none of its tensors", "[48, 17]", "[48, 16]"}, [&] {
    latents({{f, 1}});
  });
  test::expect_error(ErrorCode::invalid_argument, {"weight is nan"}, [&] { latents({{f, NAN}}); });
  test::expect_error(ErrorCode::io, {"absent"}, [&] { latents({{folder_.file("absent.safetensors"), 1}}); });
}

}  // namespace
}  // namespace vkflux
