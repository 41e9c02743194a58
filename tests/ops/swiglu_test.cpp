#include <gtest/gtest.h>

#include <cmath>

#include "autograd/ops.h"
#include "autograd/tape.h"
#include "tests/harness/gpu.h"
#include "tests/harness/op_check.h"
#include "vk/error.h"

namespace vkflux::test {
namespace {

TEST(Swiglu, HalvesOfAwkwardWidths) {
  for (const Shape& shape : {Shape{3, 64}, Shape{2, 5, 14}, Shape{1, 2}, Shape{40, 8}}) {
    check_op(
        "swiglu " + shape.str(), {random(shape, 1, 2)},
        [](const auto& t) { return std::vector{op::swiglu(t[0])}; },
        [](const auto& h) {
          const Host& x = h[0];
          const size_t c = static_cast<size_t>(x.shape[-1]) / 2;
          Host y{x.shape, {}, true};
          y.shape[-1] = static_cast<int64_t>(c);
          for (size_t i = 0; i < x.data.size() / 2; ++i) {
            const double a = x[i / c * 2 * c + i % c], b = x[i / c * 2 * c + c + i % c];
            y.data.push_back(a / (1 + std::exp(-a)) * b);
          }
          return std::vector{y};
        });
  }
}

TEST(Geglu, AwkwardShapes) {
  for (const Shape& shape : {Shape{3, 64}, Shape{2, 5, 7}, Shape{1}}) {
    check_op(
        "geglu " + shape.str(), {random(shape, 1, 2), random(shape, 2)},
        [](const auto& t) { return std::vector{op::geglu(t[0], t[1])}; },
        [](const auto& h) {
          Host y = h[0];
          for (size_t i = 0; i < y.data.size(); ++i) {
            const double a = h[0][i], u = 0.7978845608028654 * (a + 0.044715 * a * a * a);
            y[i] = 0.5 * a * (1 + std::tanh(u)) * h[1][i];
          }
          return std::vector{y};
        });
  }
}

TEST(Swiglu, ExtremeInputsStayFinite) {
  const std::vector<float> x{-1e4f, 1e4f, 1, 1};
  const std::vector<float> y = op::swiglu(Tensor::from(device(), std::span<const float>(x), {4})).to_host();
  EXPECT_NEAR(y[0], 0, 1e-6);
  EXPECT_EQ(y[1], 1e4f);
  const Tensor big = Tensor::full(device(), {4}, 1e4f);
  EXPECT_EQ(op::geglu(big, Tensor::full(device(), {4}, 1.0f)).to_host()[0], 1e4f);
}

// More rows than a binding has room for are computed in parts, with the same bits.
TEST(Swiglu, LargerThanABinding) {
  const Tensor x = op::normal(device(), {700, 50}, 1, 3), b = op::normal(device(), {700, 50}, 1, 4);
  const Tensor dy = op::normal(device(), {700, 25}, 1, 5), dz = op::normal(device(), {700, 50}, 1, 6);
  const auto results = [&] {
    Tape tape;
    tape.watch(x);
    tape.watch(b);
    Tensor y, z;
    {
      const auto scope = tape.record();
      y = op::swiglu(x);
      z = op::geglu(b, x);
    }
    std::vector<std::vector<float>> out{y.to_host(), z.to_host()};
    const Grads g = tape.backward(z, dz);
    out.push_back(g.of(x).to_host());
    out.push_back(g.of(b).to_host());
    {
      const auto scope = tape.record();
      y = op::swiglu(x);
    }
    out.push_back(tape.backward(y, dy).of(x).to_host());
    return out;
  };
  const auto whole = results();
  device().set_limits({.binding = 16 << 10});
  const auto parts = results();
  device().set_limits({});
  EXPECT_EQ(parts, whole);
}

TEST(Swiglu, RejectsOddWidths) {
  EXPECT_THROW(op::swiglu(Tensor::zeros(device(), {2, 3})), Error);
}

}  // namespace
}  // namespace vkflux::test
