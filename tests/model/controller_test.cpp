// The routing controller's network against a scalar implementation, its policies against their laws, and its
// file.
#include "model/routing/controller.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "model/attention/hkr/scalar_embedding.h"
#include "tests/harness/gpu.h"
#include "tests/harness/tiny_pipeline.h"
#include "vk/error.h"

namespace vkflux {
namespace {

namespace fs = std::filesystem;
using test::device;

std::shared_ptr<ControllerNet> random_net(const ControllerConfig& config, uint64_t seed = 3) {
  auto net = std::make_shared<ControllerNet>(config);
  const std::vector<Param> params = parameters(*net);
  allocate(params, device());
  initialise(params, controller_init(config), seed);
  return net;
}

const std::vector<RouteInput> kInputs{{1, 1, 64, 64}, {0.37, 3.5, 1024, 768}, {0, 7, 8, 8}};

// One dense layer in double precision.
std::vector<double> dense(const std::vector<double>& x, const Param& weight, const Param& bias, bool silu) {
  const std::vector<float> w = weight.tensor->to_host(), b = bias.tensor->to_host();
  std::vector<double> y;
  for (size_t o = 0; o < b.size(); ++o) {
    double sum = static_cast<double>(b[o]);
    for (size_t i = 0; i < x.size(); ++i) sum += static_cast<double>(w[o * x.size() + i]) * x[i];
    y.push_back(silu ? sum / (1 + std::exp(-sum)) : sum);
  }
  return y;
}

void append(std::vector<double>& to, const std::vector<float>& from) {
  to.insert(to.end(), from.begin(), from.end());
}

std::vector<double> expected_logits(ControllerNet& net, const RouteInput& in) {
  const std::vector<Param> p = parameters(net);
  const int64_t d = net.config().embed_dim;
  std::vector<double> size, x;
  append(size, scalar_embedding(static_cast<double>(in.width), d));
  append(size, scalar_embedding(static_cast<double>(in.height), d));
  append(x, scalar_embedding(static_cast<float>(in.sigma), d));
  append(x, scalar_embedding(static_cast<float>(in.cfg), d));
  const std::vector<double> r = dense(dense(size, p[0], p[1], true), p[2], p[3], false);
  x.insert(x.end(), r.begin(), r.end());
  return dense(dense(dense(x, p[4], p[5], true), p[6], p[7], true), p[8], p[9], false);
}

TEST(ControllerNet, AgreesWithAScalarImplementation) {
  for (const ControllerConfig& config : {ControllerConfig{5, 8, 12}, ControllerConfig{3, 7, 9}}) {
    const auto net = random_net(config);
    const std::vector<float> got = net->forward(kInputs).to_host();
    const auto layers = static_cast<size_t>(config.layers);
    ASSERT_EQ(got.size(), kInputs.size() * layers);
    for (size_t n = 0; n < kInputs.size(); ++n) {
      const std::vector<double> want = expected_logits(*net, kInputs[n]);
      for (size_t l = 0; l < layers; ++l) EXPECT_NEAR(got[n * layers + l], want[l], 2e-5);
    }
  }
}

TEST(ControllerNet, HasTheNamesAndSizesOfItsFormat) {
  ControllerNet net({38, 64, 256});
  const std::vector<Param> p = parameters(net);
  EXPECT_EQ(count(p), 137382);
  EXPECT_EQ(p.front().name, "resolution_embed.proj.0.weight");
  EXPECT_EQ(p.back().name, "mlp.4.bias");
  EXPECT_TRUE((p[4].shape == Shape{256, 192}));
  EXPECT_THROW(ControllerNet({0, 64, 256}), Error);
}

double frequency_of_full(double logit, ActionNoise noise) {
  constexpr uint32_t kDraws = 20000;
  int full = 0;
  for (uint32_t i = 0; i < kDraws; ++i) full += draw_full(logit, policy_uniform(11, i / 7, i % 7), noise);
  return full / static_cast<double>(kDraws);
}

TEST(Policy, DrawsFollowTheirLaw) {
  for (const double x : {-2.0, -0.5, 0.0, 1.0, 2.5}) {
    for (const ActionNoise noise : {ActionNoise::logistic, ActionNoise::gumbel}) {
      const double p = full_probability(x, noise);
      EXPECT_NEAR(frequency_of_full(x, noise), p, 5 * std::sqrt(p * (1 - p) / 20000)) << x << name(noise);
    }
  }
  EXPECT_NEAR(full_probability(0, ActionNoise::gumbel), 0.632, 5e-4);
  EXPECT_NEAR(full_probability(1, ActionNoise::gumbel), 0.934, 5e-4);
  EXPECT_NEAR(full_probability(-1, ActionNoise::gumbel), 0.308, 5e-4);
  // The clamp of the uniform number.
  EXPECT_TRUE(draw_full(2.63, 0, ActionNoise::gumbel));
  EXPECT_FALSE(draw_full(2.62, 0, ActionNoise::gumbel));
  EXPECT_FALSE(draw_full(-13.83, 1, ActionNoise::gumbel));
}

TEST(Policy, StochasticDecisionsFollowTheAdjustedProbability) {
  PolicyOptions options;
  options.threshold = 0.3;
  options.temperature = 2;
  const std::vector<float> logits{0.4f};
  const std::vector<uint8_t> eligible{1};
  const double p = adjusted_probability(logistic(static_cast<double>(logits[0])), 0.3, 2);
  int full = 0;
  constexpr int kDraws = 20000;
  for (uint32_t i = 0; i < kDraws; ++i)
    full +=
        !decide(logits, eligible, options, [&](uint32_t l) { return policy_uniform(5, i, l); }).student[0];
  EXPECT_NEAR(full / double{kDraws}, p, 5 * std::sqrt(p * (1 - p) / kDraws));
  EXPECT_NEAR(adjusted_probability(0.37, 0.5, 1), 0.37, 1e-12);
}

TEST(Policy, ThresholdsAndTheKnob) {
  EXPECT_DOUBLE_EQ(quality_threshold(-1), 0.1);
  EXPECT_DOUBLE_EQ(quality_threshold(0.5), 0.5);
  EXPECT_DOUBLE_EQ(quality_threshold(7), 0.9);
  PolicyOptions options;
  options.kind = PolicyKind::threshold;
  const std::vector<float> logits{-1, 0, 1, -1};
  const std::vector<uint8_t> eligible{1, 1, 1, 0};
  const auto never = [](uint32_t) -> double { throw std::logic_error("a threshold draws nothing"); };
  // Equality means student; a layer that isn't eligible stays full.
  EXPECT_EQ(decide(logits, eligible, options, never).student, (std::vector<uint8_t>{1, 1, 0, 0}));
  EXPECT_EQ(parse_policy("Bernoulli"), PolicyKind::stochastic);
  EXPECT_THROW(parse_policy("fast"), Error);
  EXPECT_THROW(parse_action_noise("normal"), Error);
}

TEST(Policy, TheRankedShareRisesEvenlyAndKeepsItsStudents) {
  const std::vector<float> logits{0.5f, -3, 2, 0.5f, 7, -1, -1, NAN};  // two steps of four layers
  const std::vector<uint8_t> eligible{1, 1, 1, 0};
  std::vector<uint8_t> before(8, 0);
  for (int k = 0; k <= 6; ++k) {
    const auto steps = decide_ranked(logits, eligible, k / 6.0);
    ASSERT_EQ(steps.size(), 2u);
    std::vector<uint8_t> now = steps[0].student;
    now.insert(now.end(), steps[1].student.begin(), steps[1].student.end());
    EXPECT_EQ(std::count(now.begin(), now.end(), 1), k);
    EXPECT_EQ(now[3] + now[7], 0);
    for (size_t i = 0; i < now.size(); ++i) EXPECT_GE(now[i], before[i]) << k << " " << i;
    before = now;
  }
  const auto half = decide_ranked(logits, eligible, 0.5);
  EXPECT_EQ(half[0].student, (std::vector<uint8_t>{0, 1, 0, 0}));
  EXPECT_EQ(half[1].student, (std::vector<uint8_t>{0, 1, 1, 0}));
  EXPECT_NEAR(half[0].threshold, logistic(-1), 1e-6);
  EXPECT_EQ(decide_ranked(logits, eligible, 0)[0].threshold, 0);
  EXPECT_THROW(decide_ranked(logits, std::vector<uint8_t>{1, 1, 1}, 0.5), Error);
  EXPECT_EQ(parse_policy("Ranked"), PolicyKind::ranked);
  EXPECT_EQ(policy_at(PolicyKind::ranked, 0.3, 1).share, 0.3);
  EXPECT_DOUBLE_EQ(policy_at(PolicyKind::threshold, 0.25, 1).threshold, 0.3);
}

TEST(Router, PlansAreFunctionsOfTheirSeed) {
  const auto net = random_net({4, 8, 16});
  ControllerRouter router(net, {}, {1, 0, 1, 1});
  const auto a = router.plan(kInputs, 9), b = router.plan(kInputs, 9);
  ASSERT_EQ(a.size(), kInputs.size());
  bool differs = false;
  for (size_t n = 0; n < a.size(); ++n) {
    EXPECT_EQ(a[n].student, b[n].student);
    EXPECT_EQ(a[n].student[1], 0);
  }
  for (uint64_t seed = 0; seed < 20; ++seed) {
    const auto c = router.plan(kInputs, seed);
    for (size_t n = 0; n < c.size(); ++n) differs |= c[n].student != a[n].student;
  }
  EXPECT_TRUE(differs);
  EXPECT_THROW(ControllerRouter(net, {}, {1, 1}), Error);
}

TEST(Router, RandomRoutingHasItsShareAndFixedRoutingItsLayers) {
  RandomRouter router(0.3, {1, 1, 0, 1});
  double students = 0;
  for (uint64_t seed = 0; seed < 2000; ++seed) {
    for (const RouteDecision& d : router.plan(kInputs, seed)) {
      EXPECT_EQ(d.student[2], 0);
      students += d.student[0] + d.student[1] + d.student[3];
    }
  }
  EXPECT_NEAR(students / (2000 * 9), 0.3, 0.02);
  EXPECT_THROW(RandomRouter(1.5, {1}), Error);
  FixedRouter fixed(layer_flags({0, 2}, 3));
  EXPECT_EQ(fixed.plan(kInputs, 1)[1].student, (std::vector<uint8_t>{1, 0, 1}));
  EXPECT_THROW(layer_flags({3}, 3), Error);
  const RoutePlan plan = route_plan(fixed.plan(kInputs, 0)[0], test::student_layout(3, 64, 2, 3));
  EXPECT_EQ(plan, (RoutePlan{AttentionKind::full, AttentionKind::full, AttentionKind::hkr,
                             AttentionKind::full, AttentionKind::hkr}));
}

class ControllerFile : public ::testing::Test {
 protected:
  void SetUp() override {
    dir_ = fs::temp_directory_path() / ("vkflux_controller_" + std::to_string(getpid()));
    fs::create_directories(dir_);
  }
  void TearDown() override { fs::remove_all(dir_); }
  std::string path(const std::string& name) const { return (dir_ / name).string(); }
  static std::string refusal(const std::string& file, const BackboneLayout& model, ErrorCode code) {
    try {
      load_controller(device(), file, model);
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), code) << e.what();
      return e.what();
    }
    ADD_FAILURE() << "it was not refused";
    return "";
  }
  fs::path dir_;
  BackboneLayout model_ = test::student_layout(3, 64, 2, 4);
};

TEST_F(ControllerFile, ComesBackAsItWas) {
  const auto net = random_net({4, 8, 16});
  save_controller(path("c"), *net, model_, {{"note", "kept"}});
  const auto loaded = load_controller(device(), path("c"), model_);
  EXPECT_EQ(loaded->config().hidden_dim, 16);
  EXPECT_EQ(loaded->forward(kInputs).to_host(), net->forward(kInputs).to_host());
  EXPECT_EQ(io::SafetensorsFile(path("c")).metadata().at("note"), "kept");
}

TEST_F(ControllerFile, OfAnotherTransformerIsRefusedWithBothValues) {
  save_controller(path("c"), *random_net({4, 8, 16}), model_);
  const BackboneLayout other = test::student_layout(3, 64, 2, 38);
  const std::string layers = refusal(path("c"), other, ErrorCode::invalid_argument);
  EXPECT_NE(layers.find(" 4 "), std::string::npos) << layers;
  EXPECT_NE(layers.find("38"), std::string::npos) << layers;
  const std::string heads =
      refusal(path("c"), test::student_layout(3, 128, 2, 4), ErrorCode::invalid_argument);
  EXPECT_NE(heads.find("64"), std::string::npos) << heads;
  EXPECT_NE(heads.find("128"), std::string::npos) << heads;
}

TEST_F(ControllerFile, DamageIsAFormatError) {
  const auto net = random_net({4, 8, 16});
  std::vector<io::TensorData> tensors;
  std::map<std::string, std::string> metadata;
  append_controller(*net, model_, tensors, metadata);
  auto wrong = metadata;
  wrong["format"] = "flux2_ttr_v2";
  io::write_safetensors(path("format"), tensors, wrong);
  EXPECT_NE(refusal(path("format"), model_, ErrorCode::format).find("flux2_ttr_v2"), std::string::npos);
  wrong = metadata;
  wrong["hidden_dim"] = "32";
  io::write_safetensors(path("hidden"), tensors, wrong);
  refusal(path("hidden"), model_, ErrorCode::format);
  auto fewer = tensors;
  fewer.pop_back();
  io::write_safetensors(path("fewer"), fewer, metadata);
  refusal(path("fewer"), model_, ErrorCode::format);
  auto more = tensors;
  more.push_back(io::tensor_data("mlp.6.weight", {1}, std::vector<float>(1)));
  io::write_safetensors(path("more"), more, metadata);
  refusal(path("more"), model_, ErrorCode::format);
}

}  // namespace
}  // namespace vkflux
