// Plans of the published models, from their shapes, on devices of several sizes: what people's GPUs have.
#include <gtest/gtest.h>

#include "model/family.h"
#include "model/plan/plan.h"
#include "tests/harness/gpu.h"

namespace vkflux {
namespace {

using test::device;

constexpr uint64_t kMiB = 1 << 20, kGiB = 1024 * kMiB;

struct Case {
  const char* model;
  DType weights;
  uint64_t memory, allocation;
  bool streams;
};

class PlanSizes : public testing::TestWithParam<Case> {
 protected:
  void TearDown() override { device().set_limits({}); }
};

TEST_P(PlanSizes, A1024PictureFits) {
  const Case& c = GetParam();
  device().set_limits({.allocation = c.allocation, .memory = c.memory});
  ModelOptions options;
  options.weights = c.weights;
  const auto model = published_model(device(), c.model, options);
  GenerateRequest request;
  request.prompts = {"a cat"};
  request.width = request.height = 1024;
  request.steps = 1;
  PlanWish wish;
  wish.budget = c.memory;
  const MemoryPlan plan = make_plan(device(), *model, request, wish);
  EXPECT_TRUE(plan.fits) << plan.problem;
  EXPECT_LE(plan.reserved(), c.memory);

  const PartResidency& transformer = plan.residency.parts.at("transformer");
  EXPECT_EQ(transformer.streamed() > 0, c.streams) << transformer.streamed();
  if (c.streams) {
    EXPECT_LT(transformer.streamed(), static_cast<int64_t>(transformer.streams.size()));
  }
  // The widest activations of a whole picture's decoder.
  const bool binds = device().caps().max_storage_buffer_range >= 512 * kMiB;
  EXPECT_TRUE(plan.residency.tiling.on() || binds);
}

INSTANTIATE_TEST_SUITE_P(Published, PlanSizes,
                         testing::Values(Case{"flux1-dev", DType::q4_k, 6 * kGiB, 1 * kGiB, true},
                                         Case{"flux1-dev", DType::q4_k, 8 * kGiB, 1 * kGiB, true},
                                         Case{"flux1-dev", DType::q6_k, 12 * kGiB, 4 * kGiB, true},
                                         Case{"flux1-dev", DType::f8_e4m3, 16 * kGiB, 4 * kGiB, false},
                                         Case{"flux2-klein-4b", DType::q4_k, 8 * kGiB, 1 * kGiB, false},
                                         Case{"flux2-klein-9b", DType::q4_k, 8 * kGiB, 1 * kGiB, false},
                                         Case{"flux2-dev", DType::q4_k, 24 * kGiB, 4 * kGiB, false}));

}  // namespace
}  // namespace vkflux
