// Recorded denoising: the bits of the eager passes, for every mix of kinds, and nothing allocated in a
// steady step.
#include "model/sampler/replay.h"

#include <gtest/gtest.h>

#include "autograd/ops.h"
#include "model/attention/hkr/students.h"
#include "model/flux/transformer.h"
#include "model/sampler/run.h"
#include "tests/harness/gpu.h"
#include "tests/harness/tiny_pipeline.h"
#include "vk/error.h"

namespace vkflux {
namespace {

using test::device;

constexpr AttentionKind kFull = AttentionKind::full, kHkr = AttentionKind::hkr;
constexpr int kSteps = 6;

Flux1Config small() {
  Flux1Config c;
  c.in_channels = c.out_channels = 8;
  c.vec_in_dim = 12;
  c.context_in_dim = 20;
  c.hidden = 32;
  c.mlp_hidden = 48;
  c.heads = 2;
  c.head_dim = 16;
  c.depth = 2;
  c.depth_single = 3;
  c.axes_dim = {4, 6, 6};
  c.guidance = true;
  return c;
}

class ReplayTest : public ::testing::Test {
 protected:
  ReplayTest() : model_(small()) {
    if (!Recording::supported(device())) return;
    auto params = parameters(model_);
    allocate(params, device());
    initialise(
        params,
        [](const Param&) {
          return Init{Init::Kind::normal, 0.2f};
        },
        3);
    students_ = test::random_students(model_.layout(), true);
    install(students_, model_.attention());
  }
  Condition condition(uint64_t seed, int64_t batch) const {
    return {{"txt", op::normal(device(), {batch, 3, 20}, seed, 0)},
            {"y", op::normal(device(), {batch, 12}, seed, 1)}};
  }
  /// A run with its plans.
  struct Planned {
    std::unique_ptr<SamplingRun> run;
    std::vector<RoutePlan> plans;
    void step() { run->step(plans.empty() ? RoutePlan() : plans[static_cast<size_t>(run->step_index())]); }
  };
  Planned denoiser(bool replay, float cfg, std::vector<RoutePlan> plans, int64_t batch = 1) {
    SamplingOptions o;
    o.levels = {1, 0.8, 0.6, 0.45, 0.3, 0.1, 0};
    o.cfg = cfg;
    o.rows = 2;
    o.columns = 3;
    o.replay = replay;
    return {std::make_unique<SamplingRun>(model_, condition(5, batch), condition(6, batch),
                                          op::normal(device(), {batch, 6, 8}, 1, 0), o),
            std::move(plans)};
  }
  std::vector<float> sample(Planned d) {
    while (!d.run->finished()) d.step();
    d.run->check_finite();
    return d.run->x().to_host();
  }
  /// Step s: single block b uses its student when bit (s + b) of the pattern is set.
  static std::vector<RoutePlan> plans(unsigned pattern) {
    std::vector<RoutePlan> out;
    for (int s = 0; s < kSteps; ++s) {
      RoutePlan p(5, kFull);
      for (int b = 0; b < 3; ++b) p[static_cast<size_t>(2 + b)] = pattern >> (s + b) & 1 ? kHkr : kFull;
      out.push_back(p);
    }
    return out;
  }
  Flux1 model_;
  Students students_;
};

TEST_F(ReplayTest, EqualsEagerBitForBit) {
  if (!Recording::supported(device())) GTEST_SKIP() << "this driver has no push descriptors";
  const std::vector<float> full = sample(denoiser(false, 1, {}));
  EXPECT_EQ(sample(denoiser(true, 1, {})), full);
  for (const unsigned pattern : {0xffu, 0x55u, 0x98u, 0xc0u}) {
    for (const float cfg : {1.0f, 2.0f}) {
      const std::vector<float> eager = sample(denoiser(false, cfg, plans(pattern)));
      EXPECT_EQ(sample(denoiser(true, cfg, plans(pattern))), eager) << pattern << " cfg " << cfg;
      EXPECT_NE(eager, full);
    }
  }
  EXPECT_EQ(sample(denoiser(true, 2, plans(0x98), 2)), sample(denoiser(false, 2, plans(0x98), 2)))
      << "a batch of two";
}

TEST_F(ReplayTest, ASteadyStepAllocatesAndCopiesNothing) {
  if (!Recording::supported(device())) GTEST_SKIP() << "this driver has no push descriptors";
  Stream& stream = device().stream();
  for (const bool routed : {false, true}) {
    for (const bool replay : {false, true}) {
      Planned d = denoiser(replay, 1, plans(routed ? 0xff : 0));
      for (int i = 0; i < 3; ++i) d.step();
      stream.sync();
      const StreamCounters before = stream.counters();
      const PoolCounters pool = device().pool().counters();
      const size_t kernels = device().kernels().size();
      d.step();
      stream.sync();
      const StreamCounters& after = stream.counters();
      EXPECT_EQ(device().pool().counters().blocks, pool.blocks);
      EXPECT_EQ(device().kernels().size(), kernels);
      EXPECT_EQ(after.relayouts, before.relayouts);
      EXPECT_EQ(after.uploads, before.uploads);
      EXPECT_EQ(after.downloads - before.downloads, routed ? 1u : 0u) << "the check of the students' outputs";
      // begin, 2 double, join, 3 single blocks, finish
      EXPECT_EQ(after.replays - before.replays, replay ? 8u : 0u);
      if (replay) {
        EXPECT_GT(d.run->recorded_bytes(), 0u);
        // The copy of the velocity, the new latent with its difference, and the sums that check it.
        EXPECT_LE(device().pool().counters().allocations - pool.allocations, routed ? 9u : 8u);
      }
    }
  }
}

// Says that it can be recorded, but keeps a temporary tensor.
class Hoarder final : public Attention {
 public:
  Tensor forward(const AttentionCall& call) override {
    kept_.push_back(op::affine(call.q, 1));
    return op::affine(kept_.back(), 0.5f);
  }
  bool recordable(const TokenLayout&, const StepInfo&) const override { return recordable_; }
  Cost cost(const AttentionShape&) const override { return {}; }
  bool recordable_ = false;

 private:
  std::vector<Tensor> kept_;
};

TEST_F(ReplayTest, WhatCannotBeRecordedStaysEager) {
  if (!Recording::supported(device())) GTEST_SKIP() << "this driver has no push descriptors";
  const auto hoarder = std::make_shared<Hoarder>();
  model_.attention().set(3, kHkr, hoarder);
  const std::vector<float> eager = sample(denoiser(false, 1, plans(0xff)));
  EXPECT_EQ(sample(denoiser(true, 1, plans(0xff))), eager);
  hoarder->recordable_ = true;
  EXPECT_THROW(sample(denoiser(true, 1, plans(0xff))), Error);
}

TEST_F(ReplayTest, ATapOrTheProfilerMakesPassesEager) {
  if (!Recording::supported(device())) GTEST_SKIP() << "this driver has no push descriptors";
  const std::vector<float> want = sample(denoiser(false, 1, {}));
  const uint64_t before = device().stream().counters().replays;
  device().profiler().enable(true);
  const std::vector<float> profiled = sample(denoiser(true, 1, {}));
  device().profiler().enable(false);
  device().profiler().clear();
  EXPECT_EQ(profiled, want);
  EXPECT_EQ(device().stream().counters().replays, before);
}

TEST_F(ReplayTest, ARunKeepsTheStudentsItBeganWith) {
  if (!Recording::supported(device())) GTEST_SKIP() << "this driver has no push descriptors";
  const std::vector<float> want = sample(denoiser(false, 1, plans(0xff)));
  for (const bool replay : {false, true}) {
    install(students_, model_.attention());
    Planned d = denoiser(replay, 1, plans(0xff));
    for (int i = 0; i < 4; ++i) d.step();
    model_.attention().set(2, kHkr, nullptr);
    EXPECT_EQ(sample(std::move(d)), want);
    EXPECT_NE(sample(denoiser(replay, 1, plans(0xff))), want) << "the next run has one student fewer";
  }
}

}  // namespace
}  // namespace vkflux
