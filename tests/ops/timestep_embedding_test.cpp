#include <gtest/gtest.h>

#include <cmath>

#include "autograd/ops.h"
#include "autograd/run.h"
#include "tests/harness/gpu.h"
#include "tests/harness/op_check.h"
#include "vk/error.h"

namespace vkflux::test {
namespace {

Host embedding_reference(const Host& s, int64_t dim, double factor) {
  const size_t n = static_cast<size_t>(dim), half = n / 2;
  Host y{{s.shape[0], dim}, std::vector<double>(s.data.size() * n), true};
  for (size_t b = 0; b < s.data.size(); ++b) {
    for (size_t k = 0; k < half; ++k) {
      const float w =
          std::exp(-static_cast<float>(std::log(10000.0)) * static_cast<float>(k) / static_cast<float>(half));
      y[b * n + k] = std::cos(factor * s[b] * static_cast<double>(w));
      y[b * n + half + k] = std::sin(factor * s[b] * static_cast<double>(w));
    }
  }
  return y;
}

class TimestepEmbedding : public ::testing::TestWithParam<const char*> {
 protected:
  VariantOverride variant_{"timestep_embedding", GetParam()};
};

TEST_P(TimestepEmbedding, ValuesAndGradient) {
  for (int64_t dim : {16, 7, 2, 256}) {
    check_op(
        "timestep_embedding " + std::to_string(dim), {random({5}, 1, 2)},
        [&](const auto& t) { return std::vector{op::timestep_embedding(t[0], dim, 10000, 10)}; },
        [&](const auto& h) { return std::vector{embedding_reference(h[0], dim, 10)}; });
  }
}

INSTANTIATE_TEST_SUITE_P(Structures, TimestepEmbedding, ::testing::Values("simd", "gpu"));

TEST(TimestepEmbeddingRange, LargeAngles) {
  Host s{
      {6}, {0, 1.0 / 1024, 0.5, 1, 4, -8}, false};  // exact in f32, as are the products with 1000 below 2^24
  const Tensor y = op::timestep_embedding(upload(s), 256);
  const std::vector<float> got = y.to_host();
  const Host want = embedding_reference(s, 256, 1000);
  for (size_t i = 0; i < got.size(); ++i) {
    // one rounding of the angle: half a unit in its last place
    const double angle = 1000 * std::fabs(s[i / 256]);
    EXPECT_NEAR(static_cast<double>(got[i]), want[i], angle * 0x1p-23 + 2e-7) << i;
  }
}

TEST(TimestepEmbeddingRange, RejectsOtherShapes) {
  EXPECT_THROW(op::timestep_embedding(Tensor::zeros(device(), {2, 2}), 16), Error);
  EXPECT_THROW(op::timestep_embedding(Tensor::zeros(device(), {2}), 1), Error);
}

}  // namespace
}  // namespace vkflux::test
