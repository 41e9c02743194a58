// What a picture takes is known before anything is loaded, whatever the sizes, types and limits; what doesn't
// fit at once passes through the device piece by piece, with the same bits.
#include "model/plan/plan.h"

#include <gtest/gtest.h>

#include "autograd/ops.h"
#include "model/pipeline.h"
#include "tests/harness/expect_error.h"
#include "tests/harness/gpu.h"
#include "tests/harness/tiny_pipeline.h"
#include "tests/harness/wide_pipeline.h"
#include "vk/rehearsal.h"

namespace vkflux {
namespace {

using test::device;

constexpr double kTolerance = 0.05;

GenerateRequest request(int64_t side = 64) {
  GenerateRequest r;
  r.prompts = {"red apple"};
  r.width = r.height = side;
  r.steps = 4;
  r.cfg = 1;
  return r;
}

/// Restores what a test changes of the shared device.
struct Limits {
  explicit Limits(const DeviceLimits& limits) { device().set_limits(limits); }
  ~Limits() { device().set_limits({}); }
};

struct Measured {
  GenerateResult result;
  MemoryPlan plan;
  MemoryUsage usage;
};

/// On a device of its own, whose pool holds nothing else.
Measured measure(const std::string& folder, const GenerateRequest& r, const ModelOptions& options = {},
                 uint64_t budget = 0) {
  DeviceOptions device_options;
  device_options.memory_budget = budget;
  device_options.validate = false;
  const auto own = Device::create(device_options);
  Measured m;
  const auto pipeline = Pipeline::load(*own, folder, options);
  const auto job = pipeline->generate(r);
  m.plan = pipeline->memory_plan();
  m.result = job->run();
  m.usage = own->pool().usage();
  m.result.latents = m.result.noise = {};  // they would outlive their device
  return m;
}

void expect_near(uint64_t predicted, uint64_t measured, const std::string& what,
                 double tolerance = kTolerance) {
  EXPECT_NEAR(static_cast<double>(predicted), static_cast<double>(measured),
              tolerance * static_cast<double>(measured))
      << what;
}

TEST(Plan, PredictsWhatThePoolMeasures) {
  // Of q4_k this small model takes a megabyte more than its rehearsal; the miniature agrees to a thousandth.
  const struct {
    DType weights;
    int side;
    double tolerance;
  } rows[] = {{DType::f32, 64, kTolerance}, {DType::bf16, 128, kTolerance}, {DType::q4_k, 64, 0.1}};
  for (const auto& [weights, side, tolerance] : rows) {
    ModelOptions options;
    options.weights = weights;
    const Measured m = measure(test::wide_pipeline(), request(side), options);
    const std::string what = std::string(name(weights)) + " " + std::to_string(side);
    ASSERT_TRUE(m.plan.fits) << what << m.plan.problem;
    expect_near(m.plan.used(), m.usage.peak, what, tolerance);
  }
}

TEST(Plan, PredictsGuidanceBatchesAndImageToImage) {
  GenerateRequest r = request(64);
  r.cfg = 3;
  r.batch = 2;
  r.init = RgbImage{8, 8, std::vector<uint8_t>(8 * 8 * 3, 100)};
  r.strength = 1;
  const Measured m = measure(test::wide_pipeline(), r);
  expect_near(m.plan.used(), m.usage.peak, "all");
  ASSERT_EQ(m.plan.phases.size(), 4u);
  EXPECT_EQ(m.plan.phases[1].phase, PlanPhase::encode_picture);
}

// Half of what the transformer takes: the picture comes out with the same bits.
TEST(Plan, StreamsWhatDoesNotFit) {
  for (const DType weights : {DType::bf16, DType::q8_0}) {
    ModelOptions options;
    options.weights = weights;
    const Measured whole = measure(test::wide_pipeline(), request(), options);
    const auto pipeline = Pipeline::load(device(), test::wide_pipeline(), options);
    Residency r = pipeline->residency();
    for (const ModelPart& p : pipeline->parts())
      r.parts[p.name] = {false, std::vector<bool>(p.layers.size(), true)};
    const uint64_t least = rehearse(device(), *pipeline, request(), r, {}).used();
    ASSERT_LT(least, whole.plan.used());
    const uint64_t budget = (2 * least + whole.plan.used()) / 3;
    const Measured part = measure(test::wide_pipeline(), request(), options, budget);
    EXPECT_TRUE(part.plan.fits) << part.plan.problem;
    EXPECT_LE(part.usage.peak_reserved, budget) << name(weights);
    expect_near(part.plan.used(), part.usage.peak, std::string(name(weights)));
    EXPECT_GT(part.plan.residency.parts.at("transformer").streamed(), 0);
    EXPECT_EQ(part.result.images[0].rgb, whole.result.images[0].rgb) << name(weights);
  }
}

TEST(Plan, SaysWhatDoesNotFitABudget) {
  test::expect_error(ErrorCode::out_of_device_memory, {"doesn't fit"},
                     [] { measure(test::wide_pipeline(), request(), {}, 2 << 20); });
}

TEST(Plan, TilesThePictureWhenABindingOrTheMemoryIsTooSmall) {
  const Limits limits({.binding = 4 << 20});
  const auto pipeline = Pipeline::load(device(), test::wide_pipeline(), {});
  PlanWish wish;
  // 256 x 256 x 32 channels in f32 are 8 MiB.
  const MemoryPlan plan = make_plan(device(), *pipeline, request(256), wish);
  EXPECT_TRUE(plan.fits) << plan.problem;
  EXPECT_TRUE(plan.residency.tiling.on());
  wish.tiling = TilingWish::never;
  const MemoryPlan untiled = make_plan(device(), *pipeline, request(256), wish);
  EXPECT_FALSE(untiled.fits);
  EXPECT_NE(untiled.problem.find("maxStorageBufferRange"), std::string::npos) << untiled.problem;
}

// Another program takes memory after the encoders ran.
TEST(Plan, IsMadeAnewWhenMemoryShrinksBetweenPhases) {
  const Limits limits({.memory = 1ull << 30});
  const GenerateResult whole =
      Pipeline::load(device(), test::wide_pipeline(), {})->generate(request())->run();
  const auto other = Pipeline::load(device(), test::wide_pipeline(), {});
  const auto job = other->generate(request());
  EXPECT_EQ(other->memory_plan().residency.parts.at("transformer").streamed(), 0);
  const uint64_t needed = other->memory_plan().used();
  job->on_progress([&](const JobProgress& p) {
    if (p.phase == JobPhase::denoise && p.step == 0) device().set_limits({.memory = needed / 2});
  });
  device().set_limits({.memory = needed * 9 / 10});
  const GenerateResult result = job->run();
  EXPECT_GT(other->memory_plan().residency.parts.at("transformer").streamed(), 0);
  EXPECT_EQ(result.images[0].rgb, whole.images[0].rgb);
}

TEST(Plan, ARehearsalLeavesTheDeviceAsItWas) {
  const Tensor x = op::normal(device(), {64}, 1, 0);
  const std::vector<float> before = x.to_host();
  const uint64_t used = device().pool().usage().used;
  {
    const Rehearsal rehearsal(device(), 0);
    const Tensor y = Tensor::zeros(device(), {1 << 20});
    EXPECT_EQ(rehearsal.usage().used, 4u << 20);
    EXPECT_EQ(op::add(y, y).to_host()[5], 0);
    EXPECT_GE(rehearsal.usage().peak, 8u << 20);
    test::expect_error(ErrorCode::internal, {"rehearsal"}, [&] { const Rehearsal second(device(), 0); });
  }
  EXPECT_EQ(device().pool().usage().used, used);
  EXPECT_EQ(x.to_host(), before);
}

TEST(Plan, ARehearsalKeepsToItsBudgetAndTheDevicesAllocations) {
  const Limits limits({.allocation = 16 << 20});
  const Rehearsal rehearsal(device(), 66 << 20);
  {
    test::expect_error(ErrorCode::out_of_device_memory, {"no device memory"},
                       [] { Tensor::empty(device(), {5 << 20}); });
    std::vector<Tensor> held;
    test::expect_error(ErrorCode::out_of_device_memory, {"no device memory"}, [&] {
      for (int i = 0; i < 9; ++i) held.push_back(Tensor::empty(device(), {2 << 20}));
    });
    EXPECT_EQ(held.size(), 8u);
  }
}

}  // namespace
}  // namespace vkflux
