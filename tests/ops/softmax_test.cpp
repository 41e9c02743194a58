#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "autograd/ops.h"
#include "autograd/run.h"
#include "tests/harness/gpu.h"
#include "tests/harness/op_check.h"

namespace vkflux::test {
namespace {

Host softmax_reference(Host x) {
  const size_t c = static_cast<size_t>(x.shape[-1]);
  for (size_t r = 0; r < x.data.size(); r += c) {
    double top = x[r], sum = 0;
    for (size_t i = 0; i < c; ++i) top = std::max(top, x[r + i]);
    for (size_t i = 0; i < c; ++i) sum += std::exp(x[r + i] - top);
    for (size_t i = 0; i < c; ++i) x[r + i] = std::exp(x[r + i] - top) / sum;
  }
  return x;
}

Host l2_reference(Host x, double eps) {
  const size_t c = static_cast<size_t>(x.shape[-1]);
  for (size_t r = 0; r < x.data.size(); r += c) {
    double s = 0;
    for (size_t i = 0; i < c; ++i) s += x[r + i] * x[r + i];
    for (size_t i = 0; i < c; ++i) x[r + i] /= std::max(std::sqrt(s), eps);
  }
  return x;
}

class RowOps : public ::testing::TestWithParam<const char*> {
 protected:
  VariantOverride softmax_{"softmax", GetParam()}, l2_{"l2norm", GetParam()};
};

TEST_P(RowOps, Softmax) {
  for (const Shape& shape : {Shape{3, 64}, Shape{2, 2, 13}, Shape{4, 1}, Shape{2, 1500}}) {
    check_op(
        "softmax " + shape.str(), {random(shape, 1, 4)},
        [](const auto& t) { return std::vector{op::softmax(t[0])}; },
        [](const auto& h) { return std::vector{softmax_reference(h[0])}; });
  }
}

TEST_P(RowOps, SoftmaxOfRisingAndFallingRows) {
  Host x{{2, 400}, {}, false};
  for (int i = 0; i < 400; ++i) x.data.push_back(0.5 * i);
  for (int i = 0; i < 400; ++i) x.data.push_back(-0.5 * i);
  EXPECT_LE(error_of(op::softmax(upload(x)).to_host(), softmax_reference(x).data), 1e-5);
}

TEST_P(RowOps, L2Norm) {
  for (const Shape& shape : {Shape{3, 64}, Shape{2, 2, 13}, Shape{4, 1}}) {
    check_op(
        "l2norm " + shape.str(), {random(shape, 1)},
        [](const auto& t) { return std::vector{op::l2norm(t[0], 1e-6f)}; },
        [](const auto& h) { return std::vector{l2_reference(h[0], 1e-6)}; });
  }
  check_op(
      "l2norm of short rows", {random({3, 8}, 2, 0.01)},
      [](const auto& t) { return std::vector{op::l2norm(t[0], 0.5f)}; },
      [](const auto& h) { return std::vector{l2_reference(h[0], 0.5)}; });
}

INSTANTIATE_TEST_SUITE_P(Structures, RowOps, ::testing::Values("simd", "gpu"));

TEST(Softmax, MinusInfinityGetsNothingAndLargeValuesDontOverflow) {
  constexpr float inf = std::numeric_limits<float>::infinity();
  const std::vector<float> x{1000, -inf, 999, -inf, -inf, -inf, -1e30f, -1e30f};
  const std::vector<float> y =
      op::softmax(Tensor::from(device(), std::span<const float>(x), {2, 4})).to_host();
  EXPECT_NEAR(y[0], 1 / (1 + std::exp(-1.0)), 1e-6);
  EXPECT_EQ(y[1], 0);
  EXPECT_EQ(y[3], 0);
  EXPECT_EQ(y[5], 0);
  EXPECT_EQ(y[6], 0.5f);
}

TEST(Softmax, StridedInput) {
  const Host x = random({4, 6}, 3);
  const Tensor t = upload(x).slice(1, 1, 3);
  Host part{{4, 3}, {}, false};
  for (size_t i = 0; i < 12; ++i) part.data.push_back(x[i / 3 * 6 + 1 + i % 3]);
  EXPECT_LE(error_of(op::softmax(t).to_host(), softmax_reference(part).data), 1e-5);
}

}  // namespace
}  // namespace vkflux::test
