#include <gtest/gtest.h>

#include <cmath>

#include "autograd/ops.h"
#include "autograd/run.h"
#include "tests/harness/gpu.h"
#include "tests/harness/op_check.h"
#include "vk/error.h"

namespace vkflux::test {
namespace {

constexpr float kEps = 1e-5f;

// Rows of x normalised (center: minus the mean), times weight + one, plus bias; the vectors of row r start at
// (r / rows_per_vector) * C.
Host reference(const Host& x, const Host* weight, double one, const Host* bias, bool center,
               size_t per_vector) {
  Host y = x;
  const size_t c = static_cast<size_t>(x.shape[-1]);
  for (size_t r = 0; r < x.data.size() / c; ++r) {
    double mean = 0, var = 0;
    for (size_t i = 0; i < c; ++i) mean += x[r * c + i] / static_cast<double>(c);
    if (!center) mean = 0;
    for (size_t i = 0; i < c; ++i) var += std::pow(x[r * c + i] - mean, 2) / static_cast<double>(c);
    for (size_t i = 0; i < c; ++i) {
      double v = (x[r * c + i] - mean) / std::sqrt(var + static_cast<double>(kEps));
      if (weight) v *= (*weight)[r / per_vector * c + i] + one;
      if (bias) v += (*bias)[r / per_vector * c + i];
      y[r * c + i] = v;
    }
  }
  return y;
}

class Norms : public ::testing::TestWithParam<const char*> {
 protected:
  VariantOverride layer_{"layer_norm", GetParam()}, rms_{"rms_norm", GetParam()};
};

TEST_P(Norms, LayerNormOverAwkwardShapes) {
  for (const Shape& shape : {Shape{5, 64}, Shape{2, 3, 37}, Shape{1, 1}, Shape{67, 20}, Shape{6, 72}}) {
    const size_t all = static_cast<size_t>(shape.numel());
    Host x = random(shape, 1);
    for (double& v : x.data) v += 3;  // a mean well away from zero
    check_op(
        "layer_norm " + shape.str(), {x, random({shape[-1]}, 2), random({shape[-1]}, 3)},
        [](const auto& t) { return std::vector{op::layer_norm(t[0], t[1], t[2], kEps)}; },
        [&](const auto& h) { return std::vector{reference(h[0], &h[1], 0, &h[2], true, all)}; });
    check_op(
        "plain layer_norm " + shape.str(), {x},
        [](const auto& t) { return std::vector{op::layer_norm(t[0], {}, {}, kEps)}; },
        [&](const auto& h) { return std::vector{reference(h[0], nullptr, 0, nullptr, true, all)}; });
  }
}

TEST_P(Norms, OneElementFarFromTheOthers) {
  for (size_t outlier : {0u, 8u, 511u}) {
    Host x = random({1, 512}, 1);
    x[outlier] = 3e4;
    const Tensor y = op::layer_norm(upload(x), {}, {}, kEps);
    EXPECT_LE(error_of(y.to_host(), reference(x, nullptr, 0, nullptr, true, 512).data), 1e-5) << outlier;
  }
}

TEST_P(Norms, RmsNormOverAwkwardShapes) {
  for (const Shape& shape : {Shape{5, 64}, Shape{2, 3, 37}, Shape{3, 1}}) {
    const size_t all = static_cast<size_t>(shape.numel());
    check_op(
        "rms_norm " + shape.str(), {random(shape, 1), random({shape[-1]}, 2)},
        [](const auto& t) { return std::vector{op::rms_norm(t[0], t[1], kEps)}; },
        [&](const auto& h) { return std::vector{reference(h[0], &h[1], 0, nullptr, false, all)}; });
  }
}

TEST_P(Norms, LayerNormModulate) {
  for (const Shape& shape : {Shape{2, 7, 32}, Shape{3, 5, 13}, Shape{1, 40, 8}, Shape{2, 8, 24}}) {
    const Shape vector{shape[0], shape[2]};
    const size_t n = static_cast<size_t>(shape[1]);
    check_op(
        "layer_norm_modulate " + shape.str(), {random(shape, 1), random(vector, 2), random(vector, 3)},
        [](const auto& t) { return std::vector{op::layer_norm_modulate(t[0], t[1], t[2], kEps)}; },
        [&](const auto& h) { return std::vector{reference(h[0], &h[2], 1, &h[1], true, n)}; });
  }
}

INSTANTIATE_TEST_SUITE_P(Structures, Norms, ::testing::Values("simd", "gpu"));

TEST(LayerNormModulate, ReadsStridedShiftAndScale) {
  for (int64_t c : {64, 6}) {  // aligned rows are read in place, others through a copy
    const int64_t b = 2, n = 3;
    const Host x = random({b, n, c}, 4), six = random({b, 6 * c}, 5);
    const Tensor vectors = upload(six);
    const Tensor y =
        op::layer_norm_modulate(upload(x), vectors.slice(1, c, c), vectors.slice(1, 3 * c, c), kEps);
    Host shift{{b, c}, {}, false}, scale = shift;
    for (int64_t i = 0; i < b; ++i) {
      for (int64_t j = 0; j < c; ++j) {
        shift.data.push_back(six[static_cast<size_t>(i * 6 * c + c + j)]);
        scale.data.push_back(six[static_cast<size_t>(i * 6 * c + 3 * c + j)]);
      }
    }
    EXPECT_LE(error_of(y.to_host(), reference(x, &scale, 1, &shift, true, static_cast<size_t>(n)).data), 1e-5)
        << c;
  }
}

TEST(LayerNormModulate, ManyTokensSumInChunks) {
  const Shape shape{2, 300, 8}, vector{2, 8};
  check_op(
      "layer_norm_modulate chunks", {random(shape, 1), random(vector, 2), random(vector, 3)},
      [](const auto& t) { return std::vector{op::layer_norm_modulate(t[0], t[1], t[2], kEps)}; },
      [&](const auto& h) { return std::vector{reference(h[0], &h[2], 1, &h[1], true, 300)}; });
}

TEST(Modulate, MatchesTheFormula) {
  for (const Shape& shape : {Shape{2, 5, 16}, Shape{3, 33, 7}}) {
    const size_t n = static_cast<size_t>(shape[1]), c = static_cast<size_t>(shape[2]);
    const Shape vector{shape[0], shape[2]};
    check_op(
        "modulate", {random(shape, 1), random(vector, 2), random(vector, 3)},
        [](const auto& t) { return std::vector{op::modulate(t[0], t[1], t[2])}; },
        [&](const auto& h) {
          Host y = h[0];
          for (size_t i = 0; i < y.data.size(); ++i) {
            const size_t j = i / (n * c) * c + i % c;
            y[i] = h[0][i] * (1 + h[2][j]) + h[1][j];
          }
          return std::vector{y};
        });
  }
}

TEST(Modulate, RejectsOtherShapes) {
  const Tensor x = Tensor::zeros(device(), {2, 3, 8}), v = Tensor::zeros(device(), {2, 8});
  EXPECT_THROW(op::modulate(x, v, Tensor::zeros(device(), {3, 8})), Error);
  EXPECT_THROW(op::layer_norm_modulate(x, Tensor::zeros(device(), {8}), v, kEps), Error);
  EXPECT_THROW(op::layer_norm(x, Tensor::zeros(device(), {7}), {}, kEps), Error);
}

TEST(LayerNorm, EmptyTensorsPassThrough) {
  EXPECT_EQ(op::layer_norm(Tensor::zeros(device(), {0, 8}), {}, {}, kEps).numel(), 0);
}

}  // namespace
}  // namespace vkflux::test
