#include <gtest/gtest.h>

#include <cmath>

#include "autograd/ops.h"
#include "autograd/run.h"
#include "tests/harness/gpu.h"
#include "tests/harness/op_check.h"
#include "vk/error.h"

namespace vkflux::test {
namespace {

size_t at(int64_t i) {
  return static_cast<size_t>(i);
}

struct Branches {
  std::vector<double> ok, ol;
};

Branches conditioned(const std::vector<Host>& h, bool with) {
  Branches b{h[0].data, h[1].data};
  if (!with) return b;
  for (double& x : b.ok) x = x * (1 + h[3][0]) + h[3][1];
  for (double& x : b.ol) x = x * (1 + h[3][2]) + h[3][3];
  return b;
}

// g of every token, from the branches.
std::vector<double> gate_statistic(const Branches& b, const Shape& s) {
  const int64_t rows = s.numel() / s[3], tokens = s[2], cols = s[3];
  std::vector<double> d, g;
  for (int64_t r = 0; r < rows; ++r) {
    double xy = 0, xx = 0, yy = 0;
    for (int64_t i = r * cols; i < (r + 1) * cols; ++i) {
      xy += b.ok[at(i)] * b.ol[at(i)];
      xx += b.ok[at(i)] * b.ok[at(i)];
      yy += b.ol[at(i)] * b.ol[at(i)];
    }
    d.push_back(1 - xy / (std::max(std::sqrt(xx), 1e-8) * std::max(std::sqrt(yy), 1e-8)));
  }
  for (int64_t r = 0; r < rows; ++r) {
    double mean = 0;
    for (int64_t t = 0; t < tokens; ++t) mean += d[at(r / tokens * tokens + t)] / static_cast<double>(tokens);
    g.push_back(std::min(d[at(r)] / std::max(mean, 1e-6), 3.0) / 3);
  }
  return g;
}

// Inputs: kernel, land, alpha[], conditioner [4]. g as given: it is a constant for the gradients.
std::vector<Host> reference(const std::vector<Host>& h, bool with, const op::HkrBlendOptions& o,
                            const std::vector<double>& g) {
  const Branches b = conditioned(h, with);
  Host y{h[0].shape, {}, true};
  const int64_t cols = h[0].shape[3];
  for (int64_t i = 0; i < h[0].shape.numel(); ++i) {
    const double logit = h[2][0] + (o.adaptive ? static_cast<double>(o.gamma) * (g[at(i / cols)] - 0.5) : 0);
    const double a = static_cast<double>(o.alpha_max) / (1 + std::exp(-logit));
    y.data.push_back(b.ok[at(i)] + a * (b.ol[at(i)] - b.ok[at(i)]));
  }
  return {y};
}

TEST(HkrBlend, ForwardAndGradients) {
  for (const char* variant : {"simd", "gpu"}) {
    const VariantOverride force("hkr_blend", variant);
    for (const Shape& shape : {Shape{1, 2, 7, 8}, Shape{2, 3, 1, 64}, Shape{1, 1, 33, 7}}) {
      for (const bool with : {true, false}) {
        for (const bool adaptive : {true, false}) {
          const op::HkrBlendOptions o{0.6f, 3.0f, adaptive};
          std::vector<Host> in{random(shape, 1), random(shape, 2), random({}, 3), random({1, 4}, 4, 0.3)};
          in[3].grad = with;
          const std::vector<double> g = gate_statistic(conditioned(in, with), shape);
          check_op(
              std::string(variant) + " hkr_blend " + shape.str(), in,
              [&](const auto& t) {
                return std::vector{op::hkr_blend(t[0], t[1], with ? t[3] : Tensor(), t[2], o).out};
              },
              [&](const auto& h) { return reference(h, with, o, g); });
        }
      }
    }
  }
}

Tensor tensor(std::vector<float> x, const Shape& shape) {
  return Tensor::from(device(), std::span<const float>(x), shape);
}

TEST(HkrBlend, WorkedExample) {
  const Tensor kernel = tensor({1, 0, 1, 0}, {1, 1, 2, 2}), land = tensor({1, 0, -1, 0}, {1, 1, 2, 2});
  const auto r = op::hkr_blend(kernel, land, {}, tensor({-2.1972246f}, {}));
  const std::vector<float> gate = r.gate.to_host(), y = r.out.to_host();
  EXPECT_NEAR(0.2 * gate[0], 0.007854, 1e-6);
  EXPECT_NEAR(0.2 * gate[1], 0.026850, 1e-6);
  EXPECT_NEAR(y[0], 1, 1e-6);
  EXPECT_NEAR(y[2], 0.946300, 1e-6);
}

TEST(HkrBlend, EqualAndZeroBranches) {
  const Tensor x = upload(random({1, 1, 5, 8}, 9)), alpha = tensor({0}, {});
  const auto same = op::hkr_blend(x, x, {}, alpha);
  EXPECT_EQ(same.out.to_host(), x.to_host());
  const Tensor zero = Tensor::zeros(device(), {1, 1, 5, 8});
  for (const float v : op::hkr_blend(zero, zero, {}, alpha).out.to_host()) EXPECT_EQ(v, 0);
  // A vanished branch has cosine 0: every token disagrees alike, g = 1/3.
  const auto half = op::hkr_blend(zero, x, {}, alpha);
  for (const float v : half.gate.to_host()) EXPECT_NEAR(v, 1 / (1 + std::exp(1.0 / 3)), 1e-6);
}

TEST(HkrBlend, DegenerateCalls) {
  const Tensor none = Tensor::zeros(device(), {1, 2, 0, 8}), alpha = tensor({0}, {});
  EXPECT_EQ(op::hkr_blend(none, none, {}, alpha).out.shape(), none.shape());
  const Tensor x = upload(random({1, 1, 3, 8}, 1)), y = upload(random({1, 1, 3, 8}, 2));
  EXPECT_EQ(op::hkr_blend(x, y, {}, alpha, {0.0f, 2.0f, true}).out.to_host(), x.to_host());
  EXPECT_THROW(op::hkr_blend(x, none, {}, alpha), Error);
  EXPECT_THROW(op::hkr_blend(x, y, alpha, alpha), Error);
}

}  // namespace
}  // namespace vkflux::test
