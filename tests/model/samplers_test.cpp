// Samplers, schedules, latents and the watch for values that aren't finite, on whole pipelines.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "autograd/ops.h"
#include "model/flux/transformer.h"
#include "model/io/json.h"
#include "model/io/safetensors.h"
#include "model/pipeline.h"
#include "model/sampler/latents_file.h"
#include "model/sampler/scheduler_config.h"
#include "model/vae/codec.h"
#include "tests/harness/base64.h"
#include "tests/harness/expect_error.h"
#include "tests/harness/gpu.h"
#include "tests/harness/temp_folder.h"
#include "tests/harness/tiny_pipeline.h"
#include "vk/error.h"

namespace vkflux {
namespace {

using test::device;
using test::expect_error;

const std::string kRoot = VKFLUX_SOURCE_DIR;

/// Another model, with changes.
class Changed : public Model {
 public:
  explicit Changed(Pipeline& model) : model_(model), info_(model.info()) {}
  const ModelInfo& info() const override { return info_; }
  std::shared_ptr<Backbone> backbone() override { return model_.backbone(); }
  std::shared_ptr<LatentCodec> codec() override { return model_.codec(); }
  Condition encode(const std::vector<std::string>& prompts) override { return model_.encode(prompts); }

  Pipeline& model_;
  ModelInfo info_;
};

GenerateRequest request(const std::string& prompt) {
  GenerateRequest r;
  r.prompts = {prompt};
  return r;
}

std::vector<float> latents(Model& model, const GenerateRequest& r) {
  return GenerateJob(device(), model, r).run().latents.to_host();
}

TEST(Samplers, PicturesAreDiffusersUnderEveryScheduler) {
  const io::Json all = io::read_json(kRoot + "/tests/data/emoji_samplers.json");
  const auto pipeline = Pipeline::load(device(), kRoot + "/models/emoji");
  Changed model(*pipeline);
  size_t checked = 0;
  for (const io::Json& row : all.at("pictures")) {
    const auto config = SchedulerConfig::from_json(row.at("config"));
    model.info_.schedule = config.schedule;
    model.info_.solver = config.solver;
    GenerateRequest r = request(row.at("prompt"));
    r.seed = all.at("seed");
    r.width = r.height = all.at("size");
    r.noise = NoiseMode::mersenne;
    r.steps = row.at("steps");
    r.cfg = row.at("cfg").get<float>();
    if (r.cfg != 1) r.negative = {row.at("negative")};
    const std::vector<uint8_t> ours = GenerateJob(device(), model, r).run().images.at(0).rgb,
                               theirs = test::from_base64(row.at("rgb"));
    ASSERT_EQ(ours.size(), theirs.size());
    int most = 0;
    for (size_t i = 0; i < ours.size(); ++i) most = std::max(most, std::abs(int{ours[i]} - int{theirs[i]}));
    EXPECT_LE(most, 1) << io::json_text(row.at("config")) << " " << row.at("steps");
    ++checked;
  }
  EXPECT_GE(checked, 20u);
}

class TinySamplers : public testing::Test {
 protected:
  void SetUp() override { pipeline_ = Pipeline::load(device(), test::tiny_pipeline()); }
  GenerateRequest base() const {
    GenerateRequest r = request("a photo of a cat");
    r.steps = 5;
    return r;
  }
  std::unique_ptr<Pipeline> pipeline_;
};

TEST_F(TinySamplers, EveryOneIsReplayedAndOfItsOwnSeeds) {
  std::vector<std::vector<float>> seen;
  for (const SamplerRow& row : samplers()) {
    GenerateRequest r = base();
    r.sampler = row.name;
    const std::vector<float> first = latents(*pipeline_, r);
    r.replay = false;
    EXPECT_EQ(latents(*pipeline_, r), first) << row.name << " without recordings";
    r.replay = true;
    r.batch = 2;
    const std::vector<float> both = latents(*pipeline_, r);
    r.batch = 1;
    r.seed = 1;
    const std::vector<float> second = latents(*pipeline_, r);
    for (size_t i = 0; i < first.size(); ++i) {
      EXPECT_NEAR(both[i], first[i], 2e-4) << row.name;
      EXPECT_NEAR(both[first.size() + i], second[i], 2e-4)
          << row.name << ": its noise must be its own seed's";
    }
    if (std::string(row.name) == "ddim_trailing") {
      EXPECT_EQ(first, seen.front()) << "DDIM is Euler";
    } else {
      EXPECT_EQ(std::count(seen.begin(), seen.end(), first), 0) << row.name;
    }
    seen.push_back(first);
  }
}

TEST_F(TinySamplers, SchedulesLevelsAndShiftsAreTaken) {
  std::vector<std::vector<double>> seen;
  for (const SpacingRow& row : spacings()) {
    GenerateRequest r = base();
    r.schedule = row.name;
    const GenerateResult result = GenerateJob(device(), *pipeline_, r).run();
    EXPECT_EQ(result.levels.back(), 0) << row.name;
    seen.push_back(result.levels);
  }
  GenerateRequest r = base();
  r.levels = {0.9, 0.5, 0.2, 0};
  r.steps = 0;
  const GenerateResult hand = GenerateJob(device(), *pipeline_, r).run();
  EXPECT_EQ(hand.levels, r.levels);
  EXPECT_EQ(hand.steps, 3);
  r = base();
  r.shift = 3;
  EXPECT_NEAR(GenerateJob(device(), *pipeline_, r).run().levels[1], 3 * 0.8 / (1 + 2 * 0.8), 1e-9);
  r.base_shift = 1;
  expect_error(ErrorCode::invalid_argument, {"not both"}, [&] { GenerateJob(device(), *pipeline_, r); });
  r.shift.reset();
  r.max_shift = 1;
  EXPECT_NEAR(GenerateJob(device(), *pipeline_, r).run().levels[1], time_shift(1, 1, 0.8), 1e-9);
  r.sampler = "dice";
  expect_error(ErrorCode::invalid_argument, {"dice", "unipc"}, [&] { GenerateJob(device(), *pipeline_, r); });
}

TEST_F(TinySamplers, ANegativePromptIsForAllOrForOne) {
  GenerateRequest r = base();
  r.cfg = 3;
  r.prompts = {"cat", "dog"};
  r.negative = {"tree"};
  const std::vector<float> same = latents(*pipeline_, r);
  r.negative = {"tree", "house"};
  const std::vector<float> own = latents(*pipeline_, r);
  const auto half = static_cast<ptrdiff_t>(same.size() / 2);
  for (ptrdiff_t i = 0; i < half; ++i)
    EXPECT_NEAR(own[static_cast<size_t>(i)], same[static_cast<size_t>(i)], 2e-4);
  EXPECT_FALSE(std::equal(own.begin() + half, own.end(), same.begin() + half));
  r.negative = {"a", "b", "c"};
  expect_error(ErrorCode::invalid_argument, {"3 negative", "for 2"},
               [&] { GenerateJob(device(), *pipeline_, r); });
}

TEST_F(TinySamplers, LatentsGoThroughFiles) {
  const test::TempFolder folder;
  GenerateRequest r = base();
  r.batch = 2;
  GenerateJob job(device(), *pipeline_, r);
  const GenerateResult& drawn = job.run();
  LatentsFile file;
  file.latents = job.latents();
  file.noise = drawn.noise;
  file.levels = drawn.levels;
  file.settings = {{"width", "16"}, {"height", "8"}};
  file.save(folder.file("both.safetensors"));
  const ModelInfo& info = pipeline_->info();
  const auto read = [&](const std::string& name, LatentKind kind, int64_t width = 0, int64_t height = 0) {
    return read_latents(device(), folder.file(name), kind, info.layout.geometry, info.pixels_per_cell, width,
                        height);
  };
  GenerateRequest decode = base();
  decode.batch = 2;
  decode.latents = read("both.safetensors", LatentKind::latents).latents;
  const GenerateResult decoded = GenerateJob(device(), *pipeline_, decode).run();
  EXPECT_EQ(decoded.images[1].rgb, drawn.images[1].rgb);
  EXPECT_TRUE(decoded.reports.empty());
  GenerateRequest again = base();
  again.batch = 2;
  again.seed = 77;
  again.start_noise = read("both.safetensors", LatentKind::noise).noise;
  EXPECT_EQ(latents(*pipeline_, again), drawn.latents.to_host());
  again.batch = 1;
  expect_error(ErrorCode::invalid_argument, {"noise [2, 4, 4, 8]", "1 picture"},
               [&] { GenerateJob(device(), *pipeline_, again); });

  // As diffusers packs them, in half precision, under another name.
  const Tensor packed = info.layout.geometry.pack(drawn.latents);
  const auto write = [&](const char* name, const std::string& tensor, std::vector<int64_t> shape,
                         const std::vector<float>& values, io::FileDType type = io::FileDType::f32) {
    io::write_safetensors(folder.file(name), {io::tensor_data(tensor, std::move(shape), values, type)});
  };
  write("packed.safetensors", "x", {2, 8, 16}, packed.to_host());
  EXPECT_EQ(read("packed.safetensors", LatentKind::latents, 16, 8).latents.to_host(),
            drawn.latents.to_host());
  EXPECT_EQ(read("packed.safetensors", LatentKind::noise, 16, 8).noise.to_host(), drawn.latents.to_host());
  expect_error(ErrorCode::format, {"packed.safetensors", "8 tokens", "--size"},
               [&] { read("packed.safetensors", LatentKind::latents); });
  write("half.safetensors", "latents", {2, 4, 4, 8}, drawn.latents.to_host(), io::FileDType::f16);
  EXPECT_EQ(read("half.safetensors", LatentKind::latents).latents.shape(), (Shape{2, 4, 4, 8}));
  write("one.safetensors", "latents", {4, 4, 8}, std::vector<float>(128, 0.5f));
  EXPECT_EQ(read("one.safetensors", LatentKind::latents).latents.shape(), (Shape{1, 4, 4, 8}));
  write("channels.safetensors", "latents", {1, 5, 4, 8}, std::vector<float>(160, 0.5f));
  expect_error(ErrorCode::format, {"[1, 5, 4, 8]", "4 channels"},
               [&] { read("channels.safetensors", LatentKind::latents); });
  write("odd.safetensors", "latents", {1, 4, 3, 8}, std::vector<float>(96, 0.5f));
  expect_error(ErrorCode::format, {"[1, 4, 3, 8]"}, [&] { read("odd.safetensors", LatentKind::latents); });
  write("nan.safetensors", "latents", {1, 4, 4, 8}, std::vector<float>(128, NAN));
  expect_error(ErrorCode::format, {"finite"}, [&] { read("nan.safetensors", LatentKind::latents); });
  write("comfy.safetensors", "latent_tensor", {1, 4, 4, 8}, std::vector<float>(128, 1));
  expect_error(ErrorCode::unsupported, {"ComfyUI"}, [&] { read("comfy.safetensors", LatentKind::latents); });
  write("scalar.safetensors", "x", {128}, std::vector<float>(128, 1));
  expect_error(ErrorCode::format, {"\"latents\""}, [&] { read("scalar.safetensors", LatentKind::latents); });
}

/// The transformer has an infinite weight until f32 weights are asked for, when it has one that can be
/// mended.
class Sick final : public Changed {
 public:
  Sick(Pipeline& model, std::string weight, bool mends)
      : Changed(model), weight_(std::move(weight)), mends_(mends) {}
  std::shared_ptr<Backbone> backbone() override {
    std::shared_ptr<Backbone> out = model_.backbone();
    for (const Param& p : parameters(dynamic_cast<Flux1&>(*out))) {
      if (p.name != weight_) continue;
      if (!well_.defined()) well_ = *p.tensor;
      *p.tensor = mended_ ? well_ : Tensor::full(device(), p.shape, INFINITY);
    }
    return out;
  }
  bool use_f32(ModelStage) override { return mends_ && std::exchange(mended_, true) == false; }

 private:
  std::string weight_;
  bool mends_, mended_ = false;
  Tensor well_;
};

TEST_F(TinySamplers, ALayerThatIsNotFiniteIsNamed) {
  Sick sick(*pipeline_, "single_blocks.1.linear2.bias", false);
  expect_error(ErrorCode::verification_failed, {"after step 1 of 5", "single.1", "damaged"},
               [&] { latents(sick, base()); });
}

TEST_F(TinySamplers, AStepIsMadeAgainWithF32Weights) {
  for (const char* sampler : {"euler", "unipc"}) {
    GenerateRequest r = base();
    r.sampler = sampler;
    const auto well = Pipeline::load(device(), test::tiny_pipeline());
    const std::vector<float> want = latents(*well, r);
    const auto other = Pipeline::load(device(), test::tiny_pipeline());
    Sick sick(*other, "double_blocks.0.img_mlp.2.bias", true);
    GenerateJob job(device(), sick, r);
    EXPECT_EQ(job.run().latents.to_host(), want) << sampler;
    ASSERT_EQ(job.result().notes.size(), 1u);
    EXPECT_NE(job.result().notes[0].find("double.0.img"), std::string::npos) << job.result().notes[0];
    EXPECT_EQ(job.result().reports.size(), 5u);
  }
}

/// Text encoders whose first answer isn't finite.
class SickText final : public Changed {
 public:
  using Changed::Changed;
  Condition encode(const std::vector<std::string>& prompts) override {
    Condition c = model_.encode(prompts);
    if (!mended) c.set("txt", op::affine(c["txt"], INFINITY));
    return c;
  }
  std::string not_finite_in_encode(const std::vector<std::string>&) override {
    return "text_encoder_2: hidden.3";
  }
  bool use_f32(ModelStage) override { return may_mend && std::exchange(mended, true) == false; }
  bool mended = false, may_mend = true;
};

TEST_F(TinySamplers, TextIsEncodedAgainWithF32Weights) {
  const std::vector<float> want = latents(*pipeline_, base());
  SickText sick(*pipeline_);
  GenerateJob job(device(), sick, base());
  EXPECT_EQ(job.run().latents.to_host(), want);
  ASSERT_EQ(job.result().notes.size(), 1u);
  EXPECT_NE(job.result().notes[0].find("hidden.3"), std::string::npos);
  SickText dead(*pipeline_);
  dead.may_mend = false;
  expect_error(ErrorCode::verification_failed, {"text encoders", "hidden.3", "damaged"},
               [&] { latents(dead, base()); });
}

/// A codec that breaks.
class SickCodec final : public Changed {
 public:
  using Changed::Changed;
  struct Codec final : LatentCodec {
    Tensor encode(const Tensor& x) const override { return x; }
    Tensor decode(const Tensor& latent) const override { return op::affine(latent, NAN); }
    std::string not_finite_in_decode(const Tensor&) const override { return "decoder.up.0"; }
  };
  std::shared_ptr<LatentCodec> codec() override { return std::make_shared<Codec>(); }
};

TEST_F(TinySamplers, ADecoderThatIsNotFiniteIsNamed) {
  SickCodec sick(*pipeline_);
  expect_error(ErrorCode::verification_failed, {"decoder.up.0", "autoencoder"},
               [&] { latents(sick, base()); });
  const GenerateResult r = GenerateJob(device(), *pipeline_, base()).run();
  EXPECT_EQ(pipeline_->codec()->not_finite_in_decode(r.latents), "");
  EXPECT_NE(pipeline_->codec()->not_finite_in_decode(op::affine(r.latents, INFINITY)), "");
  EXPECT_EQ(pipeline_->not_finite_in_encode({"cat"}), "");
}

}  // namespace
}  // namespace vkflux
