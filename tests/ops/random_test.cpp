#include <gtest/gtest.h>

#include <cmath>

#include "autograd/ops.h"
#include "tests/harness/gpu.h"
#include "train/rng.h"

namespace vkflux::test {
namespace {

TEST(RandomTest, UniformEqualsPhiloxOnTheHost) {
  const uint64_t seed = 0x123456789abcdefull, stream = 0xfedcba9876543210ull;
  const std::vector<float> got = op::uniform(device(), {1003}, seed, stream).to_host();
  for (size_t i = 0; i < got.size(); ++i) {
    const PhiloxBlock block = philox4x32(
        {static_cast<uint32_t>(i / 4), 0, static_cast<uint32_t>(stream), static_cast<uint32_t>(stream >> 32)},
        {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
    EXPECT_EQ(got[i], static_cast<float>(block[i % 4] >> 8) * 0x1p-24f) << i;
  }
}

TEST(RandomTest, TensorsBeyondOneBindingGoOn) {
  const uint64_t most = device().caps().max_storage_buffer_range / 4;
  if (most >= uint64_t{1} << 27) GTEST_SKIP() << "one binding holds 512 MiB or more here";
  const auto n = static_cast<int64_t>(most) + 1003;
  const Tensor x = op::uniform(device(), {n}, 5, 6);
  for (int64_t first : {int64_t{0}, n - 2006}) {
    const std::vector<float> got = x.slice(0, first, 2006).to_host();
    for (int64_t i = 0; i < 2006; ++i) {
      const PhiloxBlock block = philox4x32({static_cast<uint32_t>((first + i) / 4), 0, 6, 0}, {5, 0});
      ASSERT_EQ(got[static_cast<size_t>(i)],
                static_cast<float>(block[static_cast<size_t>((first + i) % 4)] >> 8) * 0x1p-24f)
          << first + i;
    }
  }
}

TEST(RandomTest, NormalHasTheRightMoments) {
  const std::vector<float> x = op::normal(device(), {40000}, 7, 1).to_host();
  double mean = 0, square = 0, fourth = 0;
  for (double v : x) {
    ASSERT_TRUE(std::isfinite(v));
    mean += v;
    square += v * v;
    fourth += v * v * v * v;
  }
  const double n = static_cast<double>(x.size());
  EXPECT_NEAR(mean / n, 0, 0.02);
  EXPECT_NEAR(square / n, 1, 0.03);
  EXPECT_NEAR(fourth / n, 3, 0.2);
}

TEST(RandomTest, ElementsDependOnSeedStreamAndIndexAlone) {
  const std::vector<float> a = op::normal(device(), {100}, 1, 2).to_host(),
                           longer = op::normal(device(), {333}, 1, 2).to_host();
  EXPECT_TRUE(std::equal(a.begin(), a.end(), longer.begin()));
  EXPECT_NE(a, op::normal(device(), {100}, 2, 2).to_host());
  EXPECT_NE(a, op::normal(device(), {100}, 1, 3).to_host());
}

}  // namespace
}  // namespace vkflux::test
