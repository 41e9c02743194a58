#include <gtest/gtest.h>

#include <cmath>

#include "train/rng.h"

namespace vkflux {
namespace {

TEST(DatasetRng, PhiloxKnownAnswers) {  // the algorithm's published test vectors
  EXPECT_EQ(philox4x32({0, 0, 0, 0}, {0, 0}), (PhiloxBlock{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox4x32({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}),
            (PhiloxBlock{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (PhiloxBlock{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(DatasetRng, EveryPartOfTheAddressMatters) {
  const uint32_t base = Rng(1, 2, 3, 4).next();
  EXPECT_EQ(Rng(1, 2, 3, 4).next(), base);
  EXPECT_NE(Rng(2, 2, 3, 4).next(), base);
  EXPECT_NE(Rng(1 + (uint64_t{1} << 32), 2, 3, 4).next(), base);
  EXPECT_NE(Rng(1, 3, 3, 4).next(), base);
  EXPECT_NE(Rng(1, 2, 4, 4).next(), base);
  EXPECT_NE(Rng(1, 2, 3, 5).next(), base);
}

TEST(DatasetRng, Moments) {
  Rng rng(5, 1);
  double sum = 0, square = 0, uniform = 0;
  std::array<int, 7> bins{};
  const int n = 70000;
  for (int i = 0; i < n; ++i) {
    const double x = rng.normal();
    sum += x;
    square += x * x;
    const float u = rng.uniform();
    ASSERT_GE(u, 0.0f);
    ASSERT_LT(u, 1.0f);
    uniform += u;
    ++bins.at(rng.below(7));
  }
  EXPECT_NEAR(sum / n, 0, 0.02);
  EXPECT_NEAR(square / n, 1, 0.03);
  EXPECT_NEAR(uniform / n, 0.5, 0.01);
  for (int count : bins) EXPECT_NEAR(count, n / 7, 400);
}

}  // namespace
}  // namespace vkflux
