// A whole checkpoint folder of a few thousand random weights: written, read, sampled.
#include "model/pipeline.h"

#include "model/flux/transformer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "model/io/file.h"
#include "tests/harness/expect_error.h"
#include "tests/harness/gguf_writer.h"
#include "tests/harness/gpu.h"
#include "tests/harness/temp_folder.h"
#include "tests/harness/tiny_pipeline.h"
#include "vk/error.h"

namespace vkflux {
namespace {

using test::device;

const std::string& checkpoint() {
  return test::tiny_pipeline();
}

GenerateRequest request(std::vector<std::string> prompts) {
  GenerateRequest r;
  r.prompts = std::move(prompts);
  return r;
}

TEST(Pipeline, DrawsAPictureInSteps) {
  const auto pipeline = Pipeline::load(device(), checkpoint());
  EXPECT_EQ(pipeline->info().defaults.steps, 3);
  EXPECT_EQ(pipeline->info().pixels_per_token(), 4);
  EXPECT_EQ(dynamic_cast<Flux1&>(*pipeline->backbone()).config().axes_dim, (std::vector<int64_t>{4, 6, 6}));
  const auto job = pipeline->generate(request({"a photo of a cat"}));
  std::vector<JobPhase> phases;
  job->on_progress([&](const JobProgress& p) { phases.push_back(p.phase); });
  int steps = 0;
  do ++steps;
  while (job->step());
  EXPECT_EQ(steps, 5);
  EXPECT_EQ(phases, (std::vector<JobPhase>{JobPhase::denoise, JobPhase::denoise, JobPhase::denoise,
                                           JobPhase::decode, JobPhase::done}));
  EXPECT_FALSE(job->step());
  const GenerateResult& r = job->result();
  ASSERT_EQ(r.images.size(), 1u);
  EXPECT_EQ(r.images[0].width, 16);
  EXPECT_EQ(r.images[0].height, 8);
  EXPECT_EQ(r.images[0].rgb.size(), 16u * 8 * 3);
  EXPECT_EQ(r.latents.shape(), (Shape{1, 4, 4, 8}));
  EXPECT_EQ(r.cfg, 2);
  EXPECT_GT(r.timings.denoise_s, 0);
  const auto [low, high] = std::minmax_element(r.images[0].rgb.begin(), r.images[0].rgb.end());
  EXPECT_LT(*low, *high);
}

std::string llama_name(std::string name) {
  const std::vector<std::pair<std::string, std::string>> parts{
      {"encoder.block.", "enc.blk."},
      {"layer.0.SelfAttention.relative_attention_bias", "attn_rel_b"},
      {"layer.0.SelfAttention.", "attn_"},
      {"layer.0.layer_norm", "attn_norm"},
      {"layer.1.layer_norm", "ffn_norm"},
      {"layer.1.DenseReluDense.wi_0", "ffn_gate"},
      {"layer.1.DenseReluDense.wi_1", "ffn_up"},
      {"layer.1.DenseReluDense.wo", "ffn_down"},
      {"encoder.final_layer_norm", "enc.output_norm"},
      {"encoder.embed_tokens", "token_embd"},
      {"shared", "token_embd"}};
  for (const auto& [ours, theirs] : parts) {
    if (const size_t at = name.find(ours); at != std::string::npos) name.replace(at, ours.size(), theirs);
  }
  return name;
}

TEST(Pipeline, PartsMayHaveFilesOfTheirOwn) {
  const std::vector<float> want =
      Pipeline::load(device(), checkpoint())->generate(request({"a cat"}))->run().latents.to_host();
  const test::TempFolder folder;
  const auto t5 = io::open_tensors(checkpoint() + "/text_encoder_2");
  io::atomic_write(folder.file("t5.gguf"), test::gguf_of(*t5, llama_name));
  std::filesystem::copy(checkpoint(), folder.file("rest"), std::filesystem::copy_options::recursive);
  std::filesystem::remove_all(folder.file("rest/text_encoder_2"));
  std::filesystem::rename(folder.file("rest/transformer"), folder.file("flux"));
  ModelOptions options;
  options.files = {{"text_encoder_2", folder.file("t5.gguf")}, {"transformer", folder.file("flux")}};
  const auto pipeline = Pipeline::load(device(), folder.file("rest"), options);
  EXPECT_EQ(pipeline->generate(request({"a cat"}))->run().latents.to_host(), want);

  options.files["unet"] = folder.file("flux");
  test::expect_error(ErrorCode::invalid_argument, {"unet"},
                     [&] { Pipeline::load(device(), folder.file("rest"), options); });
  options.files.erase("unet");
  options.files["text_encoder_2"] = folder.file("flux");
  EXPECT_THROW(Pipeline::load(device(), folder.file("rest"), options), Error);
  options.files["text_encoder_2"] = folder.file("absent.gguf");
  test::expect_error(ErrorCode::io, {"absent.gguf"},
                     [&] { Pipeline::load(device(), folder.file("rest"), options); });
}

TEST(Pipeline, PromptSeedAndNegativeDecideThePicture) {
  const auto pipeline = Pipeline::load(device(), checkpoint());
  const auto latents = [&](GenerateRequest r) {
    return pipeline->generate(std::move(r))->run().latents.to_host();
  };
  const std::vector<float> base = latents(request({"a photo of a cat"}));
  EXPECT_EQ(latents(request({"a photo of a cat"})), base);
  EXPECT_NE(latents(request({"a photo of a dog"})), base);
  GenerateRequest r = request({"a photo of a cat"});
  r.negative = {"dog"};
  EXPECT_NE(latents(r), base);
  r = request({"a photo of a cat"});
  r.seed = 1;
  const std::vector<float> other_seed = latents(r);
  EXPECT_NE(other_seed, base);
  r.seed = 0;
  r.batch = 2;
  const std::vector<float> both = latents(r);
  ASSERT_EQ(both.size(), 2 * base.size());
  for (size_t i = 0; i < base.size(); ++i) {
    EXPECT_NEAR(both[i], base[i], 1e-4);
    EXPECT_NEAR(both[base.size() + i], other_seed[i], 1e-4);
  }
}

TEST(Pipeline, PartsLetGoGiveTheSamePicture) {
  ModelOptions options;
  options.keep_parts = false;
  const auto lean = Pipeline::load(device(), checkpoint(), options);
  const auto kept = Pipeline::load(device(), checkpoint());
  const GenerateRequest r = request({"two prompts", "in one batch"});
  const auto a = lean->generate(r), b = kept->generate(r);
  EXPECT_EQ(a->run().images[1].rgb, b->run().images[1].rgb);
  EXPECT_EQ(a->result().images.size(), 2u);
}

TEST(Pipeline, ImageToImageStaysNearAtLowStrength) {
  const auto pipeline = Pipeline::load(device(), checkpoint());
  GenerateRequest r = request({"cat"});
  RgbImage init{10, 6, {}};
  for (int i = 0; i < 10 * 6 * 3; ++i) init.rgb.push_back(static_cast<uint8_t>(i));
  r.init = init;
  r.steps = 10;
  r.cfg = 1;
  const auto distance = [&](double strength) {
    r.strength = strength;
    const auto job = pipeline->generate(r);
    const std::vector<float> x = job->run().latents.to_host();
    EXPECT_EQ(job->progress().step, 10);
    GenerateRequest text = request({"cat"});
    text.steps = 10;
    text.cfg = 1;
    const std::vector<float> y = pipeline->generate(text)->run().latents.to_host();
    double sum = 0;
    for (size_t i = 0; i < x.size(); ++i) sum += std::abs(x[i] - y[i]);
    return sum / static_cast<double>(x.size());
  };
  EXPECT_LT(distance(1), 1e-4);  // strength 1 is text to image
  EXPECT_GT(distance(0.3), 0.1);
}

TEST(Pipeline, CancelsAndRefusesRequestsThatCannotBe) {
  const auto pipeline = Pipeline::load(device(), checkpoint());
  const auto job = pipeline->generate(request({"cat"}));
  job->step();
  job->cancel();
  try {
    job->step();
    FAIL() << "no error";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::cancelled);
  }
  const auto refused = [&](auto change) {
    GenerateRequest r = request({"cat"});
    change(r);
    EXPECT_THROW(pipeline->generate(r), Error);
  };
  refused([](GenerateRequest& r) { r.prompts.clear(); });
  refused([](GenerateRequest& r) { r.width = 3; });
  refused([](GenerateRequest& r) { r.height = 1 << 20; });
  refused([](GenerateRequest& r) { r.steps = -1; });
  refused([](GenerateRequest& r) { r.batch = 0; });
  refused([](GenerateRequest& r) { r.cfg = NAN; });
  refused([](GenerateRequest& r) { r.levels = {0.5, 0.7}; });
  refused([](GenerateRequest& r) {
    r.init = RgbImage{1, 1, {0, 0, 0}};
    r.strength = 0;
  });
  GenerateRequest r = request({"cat"});
  r.guidance = 4.0f;
  EXPECT_EQ(pipeline->generate(r)->result().notes.size(), 1u);
}

TEST(Pipeline, NamesThePartThatDoesNotFit) {
  const std::string dir = testing::TempDir() + "pipeline_test_broken";
  const auto refused = [&](const std::string& file, const std::string& contents, const std::string& part) {
    std::filesystem::remove_all(dir);
    std::filesystem::copy(checkpoint(), dir, std::filesystem::copy_options::recursive);
    if (contents.empty()) {
      std::filesystem::remove(dir + "/" + file);
    } else {
      io::atomic_write(dir + "/" + file, contents);
    }
    try {
      Pipeline::load(device(), dir);
      ADD_FAILURE() << "no error: " << file;
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find(part), std::string::npos) << e.what();
    }
  };
  refused("model_index.json", "", "model_index.json");
  refused("model_index.json", R"({"_class_name": "StableDiffusionPipeline"})", "StableDiffusionPipeline");
  refused("model_index.json", R"({"vkflux": {"steps": "many"}})", "steps");
  refused("model_index.json", R"({"vkflux": {"txt_tokens": 1000000}})", "text tokens");
  refused("transformer/config.json", R"({"axes_dims_rope": [4, 6, 8]})", "rope");
  refused("vae/config.json", R"({"norm_num_groups": 5})", "groups");
  refused("scheduler/scheduler_config.json", "{", "scheduler_config.json");
  refused("text_encoder_2/model.safetensors", "", "text_encoder_2");
  refused("text_encoder/model.safetensors", "x", "text_encoder");
  std::filesystem::remove_all(dir);
}

}  // namespace
}  // namespace vkflux
