#include <gtest/gtest.h>

#include <cmath>

#include "autograd/ops.h"
#include "model/flux/transformer.h"
#include "model/io/json.h"
#include "model/sampler/mix.h"
#include "model/sampler/noise.h"
#include "model/sampler/run.h"
#include "model/sampler/scheduler_config.h"
#include "tests/harness/expect_error.h"
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
  EXPECT_NEAR(Schedule().mu(1024, 4), 0.63, 1e-12);
  EXPECT_NEAR(Schedule().mu(16384, 4), 3.23, 1e-12);
}

Schedule schedule_of(const io::Json& json) {
  return SchedulerConfig::from_json(json).schedule;
}

TEST(Schedule, ReadsDiffusersConfig) {
  Schedule s = schedule_of(
      {{"_class_name", "FlowMatchEulerDiscreteScheduler"}, {"shift", 3.0}, {"use_dynamic_shifting", false}});
  expect_levels(s.levels(2, 77), {1, 0.75, 0});
  Schedule t = schedule_of({{"use_dynamic_shifting", true}, {"base_shift", 0.3}, {"max_shift", 0.9}});
  EXPECT_NEAR(t.mu(777, 4), 0.38140625, 1e-12);
  t.terminal = 0.1;
  t.linear_shift = true;
  t.spacing = Spacing::beta;
  expect_levels(schedule_of(t.to_json()).levels(5, 777), t.levels(5, 777));
  EXPECT_THROW(s.levels(0, 16), Error);
  EXPECT_THROW(s.levels(1 << 20, 16), Error);
  EXPECT_EQ(s.levels(10000, 16).size(), 10001u) << "the most there may be";
  EXPECT_THROW(s.levels(10001, 16), Error);
  EXPECT_EQ(s.levels(1, 16), (std::vector<double>{1, 0}));
  // Without the field there is no dynamic shifting.
  expect_levels(schedule_of({{"shift", 3.0}}).levels(2, 77), {1, 0.75, 0});
  // Numbers are taken for true and false as Python does, and null for nothing.
  EXPECT_TRUE(schedule_of({{"use_dynamic_shifting", 1}}).dynamic);
  EXPECT_FALSE(schedule_of({{"use_dynamic_shifting", nullptr}, {"use_karras_sigmas", 0}}).dynamic);
  EXPECT_EQ(schedule_of({{"shift_terminal", false}, {"num_train_timesteps", 500.0}}).train_steps, 500);
  schedule_of({{"unknown", 1}, {"_diffusers_version", "0.35.1"}});
}

// What is refused names the field, and what was there.
TEST(Schedule, RefusesByName) {
  const io::Json solver{{"use_flow_sigmas", true}, {"prediction_type", "flow_prediction"}};
  const auto with = [&](const char* type, const char* key, const io::Json& value) {
    io::Json out = solver;
    out["_class_name"] = type;
    out[key] = value;
    return out;
  };
  const char *dpm = "DPMSolverMultistepScheduler", *unipc = "UniPCMultistepScheduler",
             *lcm = "FlowMatchLCMScheduler", *flow = "FlowMatchEulerDiscreteScheduler";
  const std::vector<std::tuple<const char*, const char*, io::Json>> others{
      {flow, "shift", 0},
      {flow, "shift", NAN},
      {flow, "shift", "three"},
      {flow, "shift", true},
      {flow, "use_dynamic_shifting", "yes"},
      {flow, "time_shift_type", "cubic"},
      {flow, "shift_terminal", NAN},
      {flow, "shift_terminal", 1},
      {flow, "shift_terminal", -0.1},
      {flow, "num_train_timesteps", 0},
      {flow, "num_train_timesteps", 10.5},
      {flow, "base_shift", INFINITY},
      {lcm, "scale_factors", {0.5, 0.75}},
      {dpm, "use_flow_sigmas", false},
      {dpm, "prediction_type", "epsilon"},
      {dpm, "prediction_type", nullptr},
      {dpm, "algorithm_type", "dpmsolver"},
      {dpm, "solver_type", "rk4"},
      {dpm, "solver_order", 0},
      {dpm, "final_sigmas_type", "one"},
      {dpm, "thresholding", true},
      {dpm, "use_karras_sigmas", true},
      {dpm, "use_lu_lambdas", true},
      {dpm, "time_shift_type", "linear"},
      {unipc, "predict_x0", false},
      {unipc, "solver_p", "x"},
      {unipc, "solver_order", 9},
      {unipc, "disable_corrector", {0.5}},
      {unipc, "use_beta_sigmas", true}};
  for (const auto& [type, key, value] : others) {
    try {
      SchedulerConfig::from_json(with(type, key, value));
      ADD_FAILURE() << type << " " << key << " " << io::json_text(value);
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find(key), std::string::npos) << e.what();
      EXPECT_NE(std::string(e.what()).find("scheduler_config.json"), std::string::npos) << e.what();
    }
  }
  test::expect_error(ErrorCode::unsupported, {"DDIMScheduler", "UniPCMultistepScheduler"}, [] {
    schedule_of({{"_class_name", "DDIMScheduler"}});
  });
  test::expect_error(ErrorCode::format, {"use_karras_sigmas", "use_beta_sigmas"}, [] {
    schedule_of({{"use_karras_sigmas", true}, {"use_beta_sigmas", true}});
  });
  test::expect_error(ErrorCode::format, {"object"}, [] { schedule_of({1, 2}); });
  test::expect_error(ErrorCode::format, {"1 step", "shift_terminal"}, [] {
    schedule_of({{"shift_terminal", 0.1}}).levels(1, 16);
  });
}

TEST(Schedule, ChecksLevelsGivenByHand) {
  check_levels({1, 0.5, 0});
  EXPECT_NO_THROW(check_levels({1, 0})) << "one step";
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

TEST(Mix, GuidesAndMixes) {
  const Tensor x = Tensor::full(device(), {2, 3}, 2), v = Tensor::full(device(), {2, 3}, 4);
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
