#include <gtest/gtest.h>

#include <cmath>

#include "autograd/ops.h"
#include "model/flux/transformer.h"
#include "model/io/json.h"
#include "model/sampler/euler.h"
#include "model/sampler/noise.h"
#include "model/sampler/run.h"
#include "model/sampler/schedule.h"
#include "tests/harness/gpu.h"
#include "vk/error.h"

namespace vkflux {
namespace {

using test::device;

void expect_levels(const std::vector<double>& got, const std::vector<double>& want) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size(); ++i) EXPECT_NEAR(got[i], want[i], 1e-6) << i;
  EXPECT_EQ(got.back(), 0);
}

TEST(Schedule, MatchesTheReference) {
  expect_levels(Schedule::flux1_dev().levels(4, 4096), {1, 0.904531, 0.759511, 0.512844, 0});
  expect_levels(Schedule::flux1_dev().levels(20, 1024),
                {1,        0.972733, 0.944129, 0.914088, 0.882497, 0.849235, 0.814164,
                 0.777133, 0.737974, 0.696497, 0.652489, 0.605714, 0.555899, 0.502740,
                 0.445888, 0.384945, 0.319451, 0.248879, 0.172612, 0.089934, 0});
  expect_levels(Schedule::flux1_schnell().levels(4, 4096), {1, 0.75, 0.5, 0.25, 0});
  EXPECT_NEAR(Schedule().mu(1024), 0.63, 1e-12);
  EXPECT_NEAR(Schedule().mu(16384), 3.23, 1e-12);
}

TEST(Schedule, ReadsDiffusersConfig) {
  Schedule s = Schedule::from_json(
      {{"_class_name", "FlowMatchEulerDiscreteScheduler"}, {"shift", 3.0}, {"use_dynamic_shifting", false}});
  expect_levels(s.levels(2, 77), {1, 0.75, 0});
  Schedule t = Schedule::from_json({{"use_dynamic_shifting", true}, {"base_shift", 0.3}, {"max_shift", 0.9}});
  EXPECT_NEAR(t.mu(777), 0.38140625, 1e-12);
  expect_levels(Schedule::from_json(t.to_json()).levels(5, 777), t.levels(5, 777));
  EXPECT_THROW(Schedule::from_json({{"_class_name", "DDIMScheduler"}}), Error);
  EXPECT_THROW(Schedule::from_json({{"shift", 0}}), Error);
  EXPECT_THROW(Schedule::from_json({{"shift", NAN}}), Error);
  EXPECT_THROW(Schedule::from_json({{"shift", "three"}}), Error);
  EXPECT_THROW(s.levels(0, 16), Error);
  EXPECT_THROW(s.levels(1 << 20, 16), Error);
}

TEST(Schedule, RefusesByNameWhatItHasNot) {
  const std::vector<std::pair<const char*, io::Json>> others{
      {"time_shift_type", "linear"}, {"shift_terminal", 0.1},      {"stochastic_sampling", true},
      {"invert_sigmas", true},       {"num_train_timesteps", 100}, {"use_karras_sigmas", true},
      {"invert_sigmas", "yes"},      {"shift_terminal", NAN}};
  for (const auto& [key, value] : others) {
    try {
      Schedule::from_json({{key, value}});
      ADD_FAILURE() << key;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::unsupported);
      EXPECT_NE(std::string(e.what()).find(key), std::string::npos) << e.what();
    }
  }
  Schedule::from_json({{"time_shift_type", "exponential"},
                       {"shift_terminal", nullptr},
                       {"stochastic_sampling", false},
                       {"invert_sigmas", nullptr},
                       {"num_train_timesteps", 1000.0},
                       {"unknown", 1}});
}

TEST(Schedule, ChecksLevelsGivenByHand) {
  check_levels({1, 0.5, 0});
  EXPECT_THROW(check_levels({1}), Error);
  EXPECT_THROW(check_levels({1, 1, 0}), Error);
  EXPECT_THROW(check_levels({1.5, 0}), Error);
  EXPECT_THROW(check_levels({1, NAN, 0}), Error);
}

TEST(Schedule, StartsImageToImageByStrength) {
  EXPECT_EQ(image_to_image_start(10, 1), 0);
  EXPECT_EQ(image_to_image_start(10, 0.6), 4);
  EXPECT_EQ(image_to_image_start(28, 0.6), 11);
  EXPECT_THROW(image_to_image_start(10, 0), Error);
  EXPECT_THROW(image_to_image_start(10, 1.1), Error);
}

TEST(Noise, MatchesTheReferenceVectors) {
  const io::Json file = io::read_json(std::string(VKFLUX_SOURCE_DIR) + "/tests/data/torch_randn.json");
  int checked = 0;
  for (const auto& row : file.at("cases")) {
    const auto want = row.at("result").get<std::vector<float>>();
    const bool mersenne = row.at("fn") == "mt19937";
    const auto seed = row.at("seed").get<uint64_t>();
    const std::vector<float> got = mersenne
                                       ? mersenne_normal(seed, want.size())
                                       : philox_normal(seed, want.size(), row.at("draw").get<uint32_t>());
    ASSERT_EQ(got.size(), want.size());
    for (size_t i = 0; i < got.size(); ++i)
      EXPECT_NEAR(got[i], want[i], 5e-6) << row.at("fn") << " " << seed << " " << i;
    ++checked;
  }
  EXPECT_EQ(checked, 14);
}

TEST(Noise, ImagesOfABatchHaveOwnSeeds) {
  for (const NoiseMode mode : {NoiseMode::counter, NoiseMode::mersenne, NoiseMode::philox}) {
    EXPECT_EQ(parse_noise_mode(name(mode)), mode);
    const Shape shape{4, 2, 4};
    const std::vector<float> two = initial_noise(device(), seeds_from(7, 2), shape, mode).to_host();
    const std::vector<float> second = initial_noise(device(), seeds_from(8, 1), shape, mode).to_host();
    ASSERT_EQ(two.size(), 64u);
    EXPECT_TRUE(std::equal(second.begin(), second.end(), two.begin() + 32)) << name(mode);
    EXPECT_FALSE(std::equal(second.begin(), second.end(), two.begin())) << name(mode);
  }
  EXPECT_THROW(parse_noise_mode("dice"), Error);
  EXPECT_THROW(mersenne_normal(0, 15), Error);
}

TEST(Euler, StepsGuidesAndMixes) {
  const Tensor x = Tensor::full(device(), {2, 3}, 2), v = Tensor::full(device(), {2, 3}, 4);
  EXPECT_FLOAT_EQ(euler_step(x, v, 1, 0.75).to_host()[5], 1);
  EXPECT_FLOAT_EQ(guide(v, x, 3).to_host()[0], 8);
  EXPECT_FLOAT_EQ(noised(x, v, 0.25).to_host()[3], 2.5f);
}

Flux1Config tiny(bool guidance) {
  Flux1Config c;
  c.in_channels = c.out_channels = 8;
  c.vec_in_dim = 12;
  c.context_in_dim = 20;
  c.hidden = 16;
  c.mlp_hidden = 16;
  c.heads = 1;
  c.head_dim = 16;
  c.depth = c.depth_single = 1;
  c.axes_dim = {4, 6, 6};
  c.guidance = guidance;
  return c;
}

struct TinyRun {
  explicit TinyRun(bool guidance = true) : model(tiny(guidance)) {
    auto params = parameters(model);
    allocate(params, device());
    initialise(
        params,
        [](const Param&) {
          return Init{Init::Kind::normal, 0.2f};
        },
        3);
  }
  Condition condition(uint64_t seed) const {
    return {{"txt", op::normal(device(), {1, 3, 20}, seed, 0)},
            {"y", op::normal(device(), {1, 12}, seed, 1)}};
  }
  SamplingOptions options(float cfg) const {
    SamplingOptions o;
    o.levels = {1, 0.6, 0.3, 0};
    o.cfg = cfg;
    o.rows = 2;
    o.columns = 3;
    return o;
  }
  Tensor noise() const { return op::normal(device(), {1, 6, 8}, 1, 0); }
  std::vector<float> sample(SamplingOptions o, Tensor x, bool negative = true) {
    SamplingRun d(model, condition(5), negative ? std::optional(condition(6)) : std::nullopt, x, o);
    while (!d.finished()) d.step();
    d.check_finite();
    return d.x().to_host();
  }
  Flux1 model;
};

TEST(SamplingRunTest, GuidanceOfOneIsOnePass) {
  TinyRun run;
  const std::vector<float> plain = run.sample(run.options(1), run.noise(), false);
  EXPECT_EQ(run.sample(run.options(1), run.noise()), plain);
  const std::vector<float> guided = run.sample(run.options(2), run.noise());
  EXPECT_NE(guided, plain);
  EXPECT_EQ(run.sample(run.options(2), run.noise()), guided);
  EXPECT_THROW(run.sample(run.options(2), run.noise(), false), Error);
}

TEST(SamplingRunTest, ResumesFromALaterLevel) {
  TinyRun run;
  SamplingRun whole(run.model, run.condition(5), std::nullopt, run.noise(), run.options(1));
  whole.step();
  const Tensor x = whole.x();
  whole.step();
  whole.step();
  SamplingOptions late = run.options(1);
  late.start = 1;
  EXPECT_EQ(run.sample(late, x), whole.x().to_host());
  EXPECT_THROW(whole.step(), Error);
}

TEST(SamplingRunTest, ReportsTheFirstStepThatIsNotFinite) {
  TinyRun run;
  SamplingRun d(run.model, run.condition(5), std::nullopt, run.noise(), run.options(1));
  d.step();
  for (const Param& p : parameters(run.model)) {
    if (p.name == "final_layer.linear.bias") *p.tensor = Tensor::full(device(), p.shape, INFINITY);
  }
  d.step();
  d.step();
  try {
    d.check_finite();
    FAIL() << "no error";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::verification_failed);
    EXPECT_NE(std::string(e.what()).find("step 2 of 3"), std::string::npos) << e.what();
  }
}

}  // namespace
}  // namespace vkflux
