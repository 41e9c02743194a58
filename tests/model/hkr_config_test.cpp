#include <gtest/gtest.h>

#include <cmath>

#include "model/attention/hkr/hkr.h"
#include "tests/harness/gpu.h"
#include "vk/error.h"

namespace vkflux::test {
namespace {

using Shapes = std::vector<std::pair<std::string, Shape>>;

Shapes shapes_of(const HkrConfig& c) {
  HkrLayer layer(c);
  return layout(parameters(layer));
}

void expect_format_error(const Shapes& shapes, const std::string& mentions) {
  try {
    infer_hkr_config(shapes);
    ADD_FAILURE() << "no error about " << mentions;
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::format);
    EXPECT_NE(std::string(e.what()).find(mentions), std::string::npos) << e.what();
  }
}

TEST(HkrConfigs, ReferenceSizes) {
  HkrLayer layer{HkrConfig()};
  const auto params = parameters(layer);
  EXPECT_EQ(params.size(), 17u);
  EXPECT_EQ(count(params), 928901);
  EXPECT_EQ(params[0].name, "alpha");
  EXPECT_EQ(params[5].name, "kernel.phi_net_q.4.weight");
  EXPECT_EQ(params[5].shape, (Shape{256, 512}));
}

TEST(HkrConfigs, InferredFromShapes) {
  for (const HkrConfig& c : {HkrConfig{128, 256, 0, 3}, HkrConfig{64, 96, 32, 2}, HkrConfig{8, 32, 160, 3}}) {
    const HkrConfig got = infer_hkr_config(shapes_of(c));
    EXPECT_EQ(got.head_dim, c.head_dim);
    EXPECT_EQ(got.feature_dim, c.feature_dim);
    EXPECT_EQ(got.width(), c.width());
    EXPECT_EQ(got.layers, c.layers);
  }
}

TEST(HkrConfigs, DamagedFilesAreRefused) {
  const Shapes good = shapes_of({8, 32, 0, 3});
  for (size_t i = 0; i < good.size(); ++i) {
    Shapes missing = good;
    missing.erase(missing.begin() + static_cast<ptrdiff_t>(i));
    EXPECT_THROW(infer_hkr_config(missing), Error) << good[i].first;
    Shapes wrong = good;
    wrong[i].second = Shape{3, 5};
    EXPECT_THROW(infer_hkr_config(wrong), Error) << good[i].first;
  }
  Shapes extra = good;
  extra.emplace_back("kernel.phi_net_q.6.weight", Shape{32, 32});
  expect_format_error(extra, "kernel.phi_net_q.6.weight");
  Shapes huge = good;
  for (auto& [name, shape] : huge) {
    if (name == "kernel.phi_net_q.4.weight") shape = Shape{int64_t{1} << 40, 64};
  }
  expect_format_error(huge, "feature_dim");
  expect_format_error({}, "kernel.phi_net_q.0.weight");
}

TEST(HkrConfigs, RefusesOtherSizes) {
  for (const HkrConfig& c : {HkrConfig{128, 100, 0, 3}, HkrConfig{128, 0, 0, 3}, HkrConfig{6, 32, 0, 3},
                             HkrConfig{128, 256, 0, 4}, HkrConfig{128, 256, 33, 3}, HkrConfig{-4, 32, 0, 2}})
    EXPECT_THROW(HkrLayer{c}, Error);
}

TEST(HkrConfigs, StartingValues) {
  EXPECT_NEAR(alpha_logit(0.1f), -2.1972246, 1e-6);
  EXPECT_EQ(alpha_logit(0), -5);
  EXPECT_EQ(alpha_logit(NAN), -5);
  EXPECT_EQ(alpha_logit(7), 5);
  EXPECT_NEAR(alpha_logit(1 - 1e-10), 23.0258509, 1e-6);  // what single precision would take for 1
  const HkrConfig c{8, 32, 0, 3};
  HkrLayer layer(c);
  const auto params = parameters(layer, "layers.single:0.");
  allocate(params, device());
  initialise(params, hkr_init(c), 1);
  EXPECT_NEAR(layer.alpha.item(), -2.1972246, 1e-6);
  for (const Param& p : params) {
    const bool zero = p.name.find("conditioner.mlp.2") != std::string::npos;
    const double fan = p.name.find("mlp.0") != std::string::npos ? 64
                       : p.name.find("q.0.") != std::string::npos || p.name.find("k.0.") != std::string::npos
                           ? 8
                           : 64;
    double largest = 0;
    for (const float x : p.tensor->to_host()) largest = std::max(largest, std::fabs(static_cast<double>(x)));
    if (p.shape.rank() == 0) continue;
    EXPECT_LE(largest, zero ? 0 : 1 / std::sqrt(fan)) << p.name;
    EXPECT_GE(largest, zero ? 0 : 0.8 / std::sqrt(fan)) << p.name;
  }
}

TEST(HkrConfigs, CostOfTheReferenceConfiguration) {
  HkrOptions o;
  o.landmarks.max = 512;
  // Multiply-adds per token and head: 983,552 + 256 M (specification 16).
  const AttentionShape shape{1, 24, 512, 4096, 128};
  const double rows = 24 * 4608, m = 512 + 328;
  EXPECT_DOUBLE_EQ(hkr_cost({}, o, shape).flops, 2 * rows * (983552 + 256 * m));
  o.landmarks.max = 0;
  const AttentionShape large{1, 24, 512, 36864, 128};
  EXPECT_DOUBLE_EQ(hkr_cost({}, o, large).flops, 2.0 * 24 * 37376 * (983552 + 256.0 * (512 + 2949)));
  EXPECT_LT(hkr_cost({128, 64, 128, 2}, o, shape).flops, 0.25 * hkr_cost({}, o, shape).flops);
}

}  // namespace
}  // namespace vkflux::test
