#include <gtest/gtest.h>

#include <cmath>
#include <string_view>
#include <vector>

#include "autograd/ops.h"
#include "autograd/run.h"
#include "tests/harness/gpu.h"
#include "tests/harness/op_check.h"
#include "vk/error.h"

namespace vkflux::test {
namespace {

Host reference(const Host& x, bool elu, bool normalise, double eps) {
  Host y = x;
  const size_t c = static_cast<size_t>(x.shape[-1]);
  for (size_t row = 0; row < x.data.size() / c; ++row) {
    double squares = 0;
    for (size_t i = row * c; i < (row + 1) * c; ++i) {
      if (elu) y[i] = x[i] > 0 ? x[i] + 1 : std::exp(x[i]);
      squares += y[i] * y[i];
    }
    if (!normalise) continue;
    for (size_t i = row * c; i < (row + 1) * c; ++i) y[i] /= std::sqrt(squares) + eps;
  }
  return y;
}

TEST(FeatureMap, AgreesWithReferenceInBothStructures) {
  for (const char* variant : {"simd", "gpu"}) {
    const VariantOverride force("feature_map", variant);
    for (const Shape& shape : {Shape{3, 64}, Shape{2, 2, 3, 32}, Shape{5, 7}, Shape{1, 1}, Shape{2, 515}}) {
      for (const bool normalise : {true, false}) {
        check_op(
            std::string(variant) + " feature_map " + shape.str(), {random(shape, 3, 2)},
            [&](const auto& t) { return std::vector{op::feature_map(t[0], normalise)}; },
            [&](const auto& h) { return std::vector{reference(h[0], true, normalise, 1e-6)}; });
      }
    }
  }
}

TEST(FeatureMap, SoftNormAddsEpsilonToTheNorm) {
  for (const char* variant : {"simd", "gpu"}) {
    const VariantOverride force("soft_l2norm", variant);
    for (const Shape& shape : {Shape{3, 64}, Shape{4, 5}}) {
      check_op(
          std::string(variant) + " soft_l2norm", {random(shape, 4)},
          [](const auto& t) { return std::vector{op::soft_l2norm(t[0], 0.25f)}; },
          [](const auto& h) { return std::vector{reference(h[0], false, true, 0.25)}; });
    }
  }
  const std::vector<float> zero = op::soft_l2norm(Tensor::zeros(device(), {2, 8})).to_host();
  for (const float x : zero) EXPECT_EQ(x, 0);
}

TEST(FeatureMap, KeepsSmallFeaturesAndSurvivesExtremes) {
  const std::vector<float> x{-30, -200, 0, 1e4f};
  const Tensor t = Tensor::from(device(), std::span<const float>(x), {4});
  const std::vector<float> y = op::feature_map(t, false).to_host();
  EXPECT_NEAR(y[0] / std::exp(-30.0), 1, 1e-5);  // (e^x - 1) + 1 would be 0
  EXPECT_GE(y[1], 0);
  EXPECT_EQ(y[2], 1);
  EXPECT_EQ(y[3], 10001);
  for (const float v : op::feature_map(t, true).to_host()) EXPECT_TRUE(std::isfinite(v));
  EXPECT_THROW(op::feature_map(Tensor::zeros(device(), {3, 0}), true), Error);
}

Host linear_reference(const Host& x, const Host& w, const Host& b, bool silu) {
  const size_t k = static_cast<size_t>(w.shape[1]), n = static_cast<size_t>(w.shape[0]);
  Shape shape = x.shape;
  shape[-1] = w.shape[0];
  Host y{shape, std::vector<double>(x.data.size() / k * n)};
  for (size_t i = 0; i < y.data.size(); ++i) {
    double z = b[i % n];
    for (size_t j = 0; j < k; ++j) z += x[i / n * k + j] * w[i % n * k + j];
    y[i] = silu ? z / (1 + std::exp(-z)) : z;
  }
  return y;
}

TEST(FeatureNetwork, OneKernelAgreesWithReference) {
  struct Sizes {
    int64_t rows, d, width, features;
    int layers;
  };
  for (const char* variant : {"simd", "gpu"}) {
    for (const Sizes& s : {Sizes{1, 16, 32, 32, 2}, Sizes{65, 64, 128, 64, 2}, Sizes{131, 112, 32, 144, 2},
                           Sizes{33, 48, 112, 160, 3}, Sizes{3, 24, 20, 32, 3}}) {
      std::vector<Host> inputs{random({s.rows, s.d}, 1)};
      for (int l = 0; l < s.layers; ++l) {
        const int64_t in = l ? s.width : s.d, out = l + 1 < s.layers ? s.width : s.features;
        inputs.push_back(random({out, in}, static_cast<uint64_t>(10 + l), 1.5 / std::sqrt(double(in))));
        inputs.push_back(random({out}, static_cast<uint64_t>(20 + l), 0.5));
      }
      // One kernel needs layers of whole steps, and 32 KB for them; others are the products they are.
      const bool whole = s.d % 16 == 0 && s.width % 16 == 0;
      const VariantOverride force("feature_network", whole ? variant : "simd");
      // The layers by themselves have tests of their own: gradients, and the other structure, for one size.
      const bool first = s.rows == 1;
      if (!first && std::string_view(variant) == "simd") continue;
      for (const int flags : first ? std::vector<int>{0, 1, 2, 3} : std::vector<int>{1}) {
        const bool normalise = flags & 1;
        for (Host& h : inputs) h.grad = flags & 2;  // one kernel only where nobody wants a gradient
        check_op(
            std::string(variant) + " feature_network " + Shape{s.rows, s.d, s.width, s.features}.str(),
            inputs,
            [&](const auto& t) {
              std::vector<Tensor> weights, biases;
              for (size_t i = 1; i < t.size(); i += 2) weights.push_back(t[i]), biases.push_back(t[i + 1]);
              return std::vector{op::feature_network(t[0], weights, biases, normalise)};
            },
            [&](const auto& h) {
              Host x = h[0];
              for (size_t i = 1; i < h.size(); i += 2)
                x = linear_reference(x, h[i], h[i + 1], i + 2 < h.size());
              return std::vector{reference(x, true, normalise, 1e-6)};
            },
            {.max_probes = 4});
      }
    }
  }
}

}  // namespace
}  // namespace vkflux::test
