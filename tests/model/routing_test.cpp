// Routed runs of a pipeline: decisions, reports, and failing closed.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "autograd/ops.h"
#include "model/attention/hkr/students.h"
#include "model/pipeline.h"
#include "tests/harness/gpu.h"
#include "tests/harness/tiny_pipeline.h"
#include "vk/error.h"

namespace vkflux {
namespace {

using test::device;

constexpr int kDouble = 1, kSingle = 3;

GenerateRequest request(std::shared_ptr<Router> router = nullptr) {
  GenerateRequest r;
  r.prompts = {"a photo of a cat"};
  r.seed = 5;
  r.router = std::move(router);
  return r;
}

/// Full attention times a factor, at a tenth of the price.
class Scaled final : public Attention {
 public:
  Scaled(float factor, std::string refusal) : factor_(factor), refusal_(std::move(refusal)) {}
  Tensor forward(const AttentionCall& call) override { return op::affine(full_.forward(call), factor_); }
  std::string refusal(const AttentionShape&) const override { return refusal_; }
  Cost cost(const AttentionShape& s) const override {
    Cost c = full_.cost(s);
    c.flops /= 10;
    return c;
  }

 private:
  FullAttention full_;
  float factor_;
  std::string refusal_;
};

/// Remembers what it was asked; block b uses its student in the steps s with (s + b) % 2 == 0.
class Alternating final : public Router {
 public:
  explicit Alternating(size_t layers = kSingle) : layers_(layers) {}
  std::vector<RouteDecision> plan(const std::vector<RouteInput>& steps, uint64_t seed) override {
    asked = steps;
    seed_given = seed;
    std::vector<RouteDecision> out;
    for (size_t s = 0; s < steps.size(); ++s) {
      RouteDecision d;
      d.threshold = 0.25;
      for (size_t b = 0; b < layers_; ++b) d.student.push_back((s + b) % 2 == 0);
      d.probability.assign(layers_, 0.5f);
      out.push_back(d);
    }
    return out;
  }
  std::vector<RouteInput> asked;
  uint64_t seed_given = 0;

 private:
  size_t layers_;
};

class Routing : public ::testing::Test {
 protected:
  void SetUp() override { pipeline_ = Pipeline::load(device(), test::tiny_pipeline()); }
  void students(float factor, const std::string& refusal = "") {
    for (int b = 0; b < kSingle; ++b) {
      pipeline_->backbone()->attention().set(kDouble + b, AttentionKind::hkr,
                                             std::make_shared<Scaled>(factor, refusal));
    }
  }
  GenerateResult run(const GenerateRequest& r) { return pipeline_->generate(r)->run(); }
  std::unique_ptr<Pipeline> pipeline_;
};

TEST_F(Routing, NothingReadyEqualsFullAttentionBitForBit) {
  const GenerateResult full = run(request());
  const auto router = std::make_shared<Alternating>();
  const GenerateResult nothing = run(request(router));
  students(0.5f, "not ready: 3 of 24 updates");
  const GenerateResult refused = run(request(router));
  EXPECT_EQ(nothing.latents.to_host(), full.latents.to_host());
  EXPECT_EQ(refused.latents.to_host(), full.latents.to_host());
  EXPECT_EQ(refused.images[0].rgb, full.images[0].rgb);
  EXPECT_TRUE(refused.reports[0].student.empty());
  ASSERT_EQ(refused.reports[0].refused.size(), 2u);
  EXPECT_EQ(refused.reports[0].refused[1].layer, 2);
  EXPECT_EQ(refused.reports[0].refused[1].reason, "not ready: 3 of 24 updates");
  EXPECT_NE(nothing.reports[0].refused.at(0).reason.find("hkr"), std::string::npos);
}

TEST_F(Routing, EveryStepFollowsThePlanMadeBeforeIt) {
  students(0.5f);
  const auto router = std::make_shared<Alternating>();
  GenerateRequest r = request(router);
  r.route_seed = 77;
  r.time_steps = true;
  const GenerateResult routed = run(r);
  EXPECT_EQ(router->seed_given, 77u);
  ASSERT_EQ(router->asked.size(), 3u);
  EXPECT_EQ(router->asked[0].sigma, 1);
  EXPECT_EQ(router->asked[2].cfg, 2);
  EXPECT_EQ(router->asked[2].width, 16);
  EXPECT_EQ(router->asked[2].height, 8);
  ASSERT_EQ(routed.reports.size(), 3u);
  const std::vector<int> even{0, 2}, odd{1};
  for (size_t s = 0; s < 3; ++s) {
    const StepReport& step = routed.reports[s];
    EXPECT_EQ(step.index, static_cast<int64_t>(s));
    EXPECT_EQ(step.sigma, router->asked[s].sigma);
    EXPECT_EQ(step.threshold, 0.25);
    EXPECT_EQ(step.planned, s % 2 ? odd : even);
    EXPECT_EQ(step.student, step.planned);
    EXPECT_TRUE(step.refused.empty());
    EXPECT_GT(step.ms, 0);
    EXPECT_GT(step.flops, step.full_attention_flops);
    // Of four attentions one or two cost a tenth.
    const double share = s % 2 ? 3.1 / 4 : 2.2 / 4;
    EXPECT_NEAR(step.attention_flops / step.full_attention_flops, share, 1e-6);
  }
  EXPECT_NE(routed.latents.to_host(), run(request()).latents.to_host());
  r.route_seed.reset();
  run(r);
  EXPECT_EQ(router->seed_given, 5u);
}

TEST_F(Routing, ImageToImageDecidesAboutTheStepsThatRun) {
  students(0.5f);
  const auto router = std::make_shared<Alternating>();
  GenerateRequest r = request(router);
  r.init = RgbImage{16, 8, std::vector<uint8_t>(16 * 8 * 3, 90)};
  r.strength = 0.6;
  const auto job = pipeline_->generate(r);
  job->step();
  EXPECT_EQ(job->planned(), 3);
  const GenerateResult result = job->run();
  ASSERT_EQ(result.reports.size(), 2u);
  ASSERT_EQ(router->asked.size(), 2u);
  EXPECT_EQ(result.reports[0].index, 1);
  EXPECT_EQ(router->asked[0].sigma, result.reports[0].sigma);
  EXPECT_EQ(result.reports[0].planned, (std::vector<int>{0, 2}));
  EXPECT_EQ(result.reports[1].planned, (std::vector<int>{1}));
}

// Each step has its own time, whether the job runs ahead of the device, waits within a step, or after it.
TEST_F(Routing, TheTimeOfAStepIsItsOwn) {
  students(0.5f);
  for (const bool routed : {false, true}) {
    for (const bool waits : {false, true}) {
      GenerateRequest r =
          routed ? request(std::make_shared<FixedRouter>(std::vector<uint8_t>(kSingle, 1))) : request();
      r.steps = 6;
      r.time_steps = waits;
      r.width = r.height = 48;
      const GenerateResult result = run(r);
      std::vector<double> ms;
      for (const StepReport& s : result.reports) ms.push_back(s.ms);
      std::vector<double> sorted = ms;
      std::sort(sorted.begin(), sorted.end());
      EXPECT_GT(ms.back(), 0.25 * sorted[3]) << routed << waits;
      EXPECT_GT(sorted[0], 0);
      EXPECT_LE(std::accumulate(ms.begin(), ms.end(), 0.0), 1000 * result.timings.denoise_s + 1);
    }
  }
}

TEST_F(Routing, ARunLeavesNoTraceInTheNext) {
  const std::vector<float> full = run(request()).latents.to_host();
  students(0.5f);
  const std::vector<float> routed = run(request(std::make_shared<Alternating>())).latents.to_host();
  EXPECT_EQ(run(request()).latents.to_host(), full);
  EXPECT_EQ(run(request(std::make_shared<Alternating>())).latents.to_host(), routed);
  // Not even when it is given up halfway.
  const auto job = pipeline_->generate(request(std::make_shared<Alternating>()));
  job->step();
  job->step();
  EXPECT_EQ(run(request()).latents.to_host(), full);
}

TEST_F(Routing, OutputsThatAreNotFiniteAreThrownAway) {
  const std::vector<float> full = run(request()).latents.to_host();
  students(std::numeric_limits<float>::quiet_NaN());
  const GenerateResult r = run(request(std::make_shared<Alternating>()));
  EXPECT_EQ(r.latents.to_host(), full);
  EXPECT_TRUE(r.reports[2].student.empty());
  EXPECT_NE(r.reports[2].refused.at(0).reason.find("finite"), std::string::npos);
  students(0.5f);  // barred no longer
  EXPECT_EQ(run(request(std::make_shared<Alternating>())).reports[0].student, (std::vector<int>{0, 2}));
}

TEST_F(Routing, RefusesARouterForAnotherModel) {
  const auto job = pipeline_->generate(request(std::make_shared<Alternating>(5)));
  try {
    job->run();
    FAIL() << "no error";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::invalid_argument);
    EXPECT_NE(std::string(e.what()).find("decides about 5 layers"), std::string::npos) << e.what();
    EXPECT_NE(std::string(e.what()).find("3 may be replaced"), std::string::npos) << e.what();
  }
}

TEST_F(Routing, TapsSeeBothEndsOfACall) {
  struct Counter final : AttentionTap {
    int begun = 0, observed = 0;
    void begin(const AttentionCall&) override { ++begun; }
    void observe(const AttentionCall&, const Served&, const Tensor&) override {
      EXPECT_EQ(++observed, begun);
    }
  } counter;
  students(0.5f);
  GenerateRequest r = request(std::make_shared<Alternating>());
  r.tap = &counter;
  run(r);
  EXPECT_EQ(counter.begun, 3 * 2 * (kDouble + kSingle));  // steps, passes, layers
  EXPECT_EQ(counter.observed, counter.begun);
  run(request());
  EXPECT_EQ(counter.begun, 3 * 2 * (kDouble + kSingle));
}

TEST_F(Routing, InstallsStudentsFromAFile) {
  const std::string path = testing::TempDir() + "routing_test_" + std::to_string(getpid()) + ".safetensors";
  const BackboneLayout model = test::tiny_student_model();
  const std::vector<float> full = run(request()).latents.to_host();
  const auto all = std::make_shared<FixedRouter>(std::vector<uint8_t>(kSingle, 1));

  save_students(path, test::random_students(model, false), io::FileDType::f32);
  pipeline_->install_students(path);
  const GenerateResult unready = run(request(all));
  EXPECT_EQ(unready.latents.to_host(), full);
  EXPECT_EQ(unready.reports[0].refused.size(), 3u);

  save_students(path, test::random_students(model, true), io::FileDType::f32);
  pipeline_->install_students(path);
  const GenerateResult ready = run(request(all));
  EXPECT_EQ(ready.reports[0].student, (std::vector<int>{0, 1, 2}));
  EXPECT_NE(ready.latents.to_host(), full);
  EXPECT_EQ(run(request(all)).latents.to_host(), ready.latents.to_host());
  // Parts that are let go come back with their students.
  ModelOptions lean;
  lean.keep_parts = false;
  const auto again = Pipeline::load(device(), test::tiny_pipeline(), lean);
  again->install_students(path);
  EXPECT_EQ(again->generate(request(all))->run().latents.to_host(), ready.latents.to_host());

  const BackboneLayout other = test::student_layout(1, 32, 1, 3);
  save_students(path, test::random_students(other, true), io::FileDType::f32);
  EXPECT_THROW(pipeline_->install_students(path), Error);
  std::remove(path.c_str());
}

}  // namespace
}  // namespace vkflux
