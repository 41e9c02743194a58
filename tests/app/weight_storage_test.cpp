// What becomes of a model's matrices when packed weights are wanted.
#include <gtest/gtest.h>

#include "app/picture_metrics.h"
#include "model/flux/transformer.h"
#include "model/text/t5.h"
#include "tests/harness/gpu.h"
#include "tests/harness/tiny_pipeline.h"

namespace vkflux {
namespace {

// By the rules of the model that has a parameter of this name.
DType storage(const std::string& name, const Shape& shape, DType wanted,
              io::FileDType stored = io::FileDType::bf16) {
  const bool t5 = name.starts_with("encoder.") || name.starts_with("shared.");
  const StorageRules& rules = name.starts_with("text_model.") ? clip_storage()
                              : t5                            ? t5_storage()
                                                              : flux1_storage();
  return storage_of(rules, {name, shape, nullptr}, wanted, stored);
}

TEST(WeightStorage, PlainTypesTakeEveryMatrix) {
  for (const DType t : {DType::f32, DType::f16, DType::bf16}) {
    EXPECT_EQ(storage("img_in.weight", {3072, 64}, t), t);
    EXPECT_EQ(storage("img_in.bias", {3072}, t), DType::f32);
  }
}

TEST(WeightStorage, WhatEverythingPassesThroughStaysPrecise) {
  for (const char* name :
       {"img_in.weight", "txt_in.weight", "time_in.in_layer.weight", "vector_in.out_layer.weight",
        "guidance_in.in_layer.weight", "final_layer.linear.weight", "final_layer.adaLN_modulation.1.weight",
        "text_model.encoder.layers.0.mlp.fc1.weight", "shared.weight",
        "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"}) {
    for (const DType t : {DType::f8_e4m3, DType::q8_0, DType::q4_k}) {
      EXPECT_EQ(storage(name, {3072, 3072}, t), DType::bf16) << name;
      EXPECT_EQ(storage(name, {3072, 3072}, t, io::FileDType::f32), DType::f16) << name;
    }
  }
}

TEST(WeightStorage, ModulationAndShortRows) {
  const Shape wide{9216, 3072}, narrow{64, 96}, odd{8, 20};
  const char* block = "double_blocks.3.img_attn.qkv.weight";
  EXPECT_EQ(storage(block, wide, DType::q4_k), DType::q4_k);
  EXPECT_EQ(storage(block, wide, DType::f8_e4m3), DType::f8_e4m3);
  EXPECT_EQ(storage(block, narrow, DType::q4_k), DType::q8_0);
  EXPECT_EQ(storage(block, odd, DType::q4_k), DType::bf16);
  EXPECT_EQ(storage(block, odd, DType::q8_0, io::FileDType::f16), DType::f16);
  EXPECT_EQ(storage(block, odd, DType::f8_e4m3), DType::f8_e4m3);
  for (const char* name : {"double_blocks.0.txt_mod.lin.weight", "single_blocks.7.modulation.lin.weight"}) {
    EXPECT_EQ(storage(name, wide, DType::q4_k), DType::q8_0);
    EXPECT_EQ(storage(name, wide, DType::f8_e4m3), DType::q8_0);
  }
  EXPECT_EQ(misfits(flux1_storage(), {{block, wide, nullptr}, {"img_in.weight", odd, nullptr}}, DType::q4_k),
            "");
  const std::string text =
      misfits(flux1_storage(), {{block, wide, nullptr}, {"a.weight", narrow, nullptr}}, DType::q4_k);
  EXPECT_NE(text.find("1 of 2 matrices"), std::string::npos) << text;
  EXPECT_NE(text.find("a.weight [64, 96]"), std::string::npos) << text;
}

// The miniature's rows are 192, 768 and 960 values long.
TEST(WeightStorage, TheMiniatureDrawsTheSamePicture) {
  GenerateRequest request;
  request.prompts = {"a red heart"};
  request.seed = 5;
  request.steps = 2;
  const auto draw = [&](DType weights, std::string* remark) {
    ModelOptions options;
    options.weights = weights;
    options.remark = [&](const std::string& text) { *remark += text; };
    const auto pipeline =
        Pipeline::load(test::device(), std::string(VKFLUX_SOURCE_DIR) + "/models/emoji", options);
    return pipeline->generate(request)->run().images.at(0);
  };
  std::string remark;
  const RgbImage full = draw(DType::f32, &remark);
  EXPECT_EQ(remark, "");
  EXPECT_GT(compare_pictures(draw(DType::q8_0, &remark), full).psnr, 45);
  EXPECT_EQ(remark, "");
  EXPECT_GT(compare_pictures(draw(DType::q4_k, &remark), full).psnr, 33);
  EXPECT_NE(remark.find("kept in q8_0 instead of q4_k"), std::string::npos) << remark;
}

// Rows of 12, 16, 24 and 40 values.
TEST(WeightStorage, Fp8HoldsShortRows) {
  GenerateRequest request;
  request.prompts = {"a cat"};
  std::vector<RgbImage> images;
  for (const DType t : {DType::f16, DType::f8_e4m3}) {
    ModelOptions options;
    options.weights = t;
    images.push_back(Pipeline::load(test::device(), test::tiny_pipeline(), options)
                         ->generate(request)
                         ->run()
                         .images.at(0));
  }
  EXPECT_GT(compare_pictures(images[1], images[0]).psnr, 40);
}

}  // namespace
}  // namespace vkflux
