#include "model/attention/hkr/landmarks.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "model/attention/hkr/scalar_embedding.h"
#include "tests/harness/gpu.h"

namespace vkflux::test {
namespace {

using Indices = std::vector<int32_t>;

Indices head_and_tail(const Indices& all, size_t head, size_t tail) {
  Indices out(all.begin(), all.begin() + static_cast<ptrdiff_t>(head));
  out.insert(out.end(), all.end() - static_cast<ptrdiff_t>(tail), all.end());
  return out;
}

LandmarkOptions options(double fraction, int64_t min, int64_t max, int64_t guess = 77) {
  LandmarkOptions o;
  o.fraction = fraction, o.min = min, o.max = max, o.text_tokens_guess = guess;
  return o;
}

TEST(Landmarks, EvenIndices) {
  EXPECT_EQ(even_indices(0, 10, 4), (Indices{0, 3, 6, 9}));
  EXPECT_EQ(even_indices(8, 12, 2), (Indices{8, 11}));
  EXPECT_EQ(even_indices(5, 9, 1), (Indices{5}));
  EXPECT_EQ(even_indices(5, 8, 9), (Indices{5, 6, 7}));
  EXPECT_TRUE(even_indices(5, 5, 3).empty());
  EXPECT_TRUE(even_indices(5, 4, 3).empty());
  EXPECT_TRUE(even_indices(0, 4, 0).empty());
  EXPECT_EQ(head_and_tail(even_indices(0, 4608, 128), 5, 3),
            (Indices{0, 36, 73, 109, 145, 4534, 4571, 4607}));
  EXPECT_EQ(head_and_tail(even_indices(77, 4173, 328), 6, 3),
            (Indices{77, 90, 102, 115, 127, 140, 4147, 4159, 4172}));
}

TEST(Landmarks, Budget) {
  const LandmarkOptions capped = options(0.08, 64, 512);
  EXPECT_EQ(landmark_budget(0, capped), 64);
  EXPECT_EQ(landmark_budget(1024, capped), 82);
  EXPECT_EQ(landmark_budget(2304, capped), 184);
  EXPECT_EQ(landmark_budget(4096, capped), 328);
  EXPECT_EQ(landmark_budget(10000, capped), 512);
  EXPECT_EQ(landmark_budget(10000, options(0.08, 64, 0)), 800);
  EXPECT_EQ(landmark_budget(10, options(0.25, 0, 0)), 2);  // 2.5 to even; at least 1
  EXPECT_EQ(landmark_budget(0, options(-1, -5, -5)), 1);
}

TEST(Landmarks, Selection) {
  const LandmarkOptions o = options(0.5, 1, 6, 3);
  const auto count = [&](std::optional<int64_t> conditioning, std::optional<int64_t> text) {
    return select_landmarks(12, conditioning_tokens(12, conditioning, text, o), o).size();
  };
  EXPECT_EQ(count({}, {}), 7u);
  EXPECT_EQ(count({}, 8), 10u);
  EXPECT_EQ(count(6, 2), 9u);
  EXPECT_EQ(conditioning_tokens(12, {}, -3, o), 0);
  EXPECT_EQ(conditioning_tokens(12, 40, {}, o), 12);
  EXPECT_TRUE(select_landmarks(0, 0, o).empty());
  EXPECT_EQ(select_landmarks(1, 0, o), (Indices{0}));
}

TEST(Landmarks, Masks) {
  const LandmarkOptions o = options(0.5, 1, 2, 0);
  const std::vector<uint8_t> none(8, 0);
  EXPECT_EQ(select_landmarks(8, 1, o, none), (Indices{0}));
  std::vector<uint8_t> some = none;
  some[3] = some[4] = some[5] = some[6] = 1;
  // Landmarks would be 0, 1 and 7: all dropped, so three of the kept keys stand in.
  EXPECT_EQ(select_landmarks(8, 1, o, some), (Indices{3, 5, 6}));
  some[7] = 1;
  EXPECT_EQ(select_landmarks(8, 1, o, some), (Indices{7}));
  EXPECT_EQ(safe_mask({0, 0, 1, 0, 0, 0}, 2), (std::vector<uint8_t>{0, 0, 1, 1, 0, 0}));
  EXPECT_TRUE(safe_mask({}, 2).empty());
  const std::vector<uint8_t> mask{0, 0, 0, 1};
  const Tensor safe = safe_mask(Tensor::from(device(), std::span<const uint8_t>(mask), {2, 2}));
  EXPECT_EQ(safe.to_host_bytes(), (std::vector<uint8_t>{1, 0, 0, 1}));
}

TEST(Landmarks, TrainingQueries) {
  EXPECT_EQ(select_training_queries(5, 8), (Indices{0, 1, 2, 3, 4}));
  EXPECT_EQ(select_training_queries(5, 5), (Indices{0, 1, 2, 3, 4}));
  EXPECT_EQ(select_training_queries(50, 1), (Indices{0}));
  EXPECT_EQ(select_training_queries(100, 32).size(), 32u);
  EXPECT_TRUE(select_training_queries(0, 4).empty());
}

TEST(ScalarEmbedding, KnownValues) {
  const std::vector<float> want{0.644218f, 0.032485f, 0.001508f, 0.000070f,
                                0.764842f, 0.999472f, 0.999999f, 1.000000f};
  const std::vector<float> got = scalar_embedding(0.7, 8);
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < want.size(); ++i) EXPECT_NEAR(got[i], want[i], 1e-6) << i;
  for (const auto& [requested, width] : {std::pair<int64_t, size_t>{-3, 2}, {1, 2}, {2, 2}, {3, 4}, {32, 32}})
    EXPECT_EQ(scalar_embedding(1, requested).size(), width);
}

}  // namespace
}  // namespace vkflux::test
