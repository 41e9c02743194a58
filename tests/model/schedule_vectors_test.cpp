// Noise levels and whole trajectories against diffusers' schedulers and ComfyUI's schedules
// (tests/data/make_schedules.py).
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "autograd/ops.h"
#include "model/io/json.h"
#include "model/sampler/scheduler_config.h"
#include "tests/harness/gpu.h"
#include "vk/error.h"

namespace vkflux {
namespace {

using test::device;

const io::Json& vectors() {
  static const io::Json file = io::read_json(std::string(VKFLUX_SOURCE_DIR) + "/tests/data/schedules.json");
  return file;
}

void expect_near(const std::vector<double>& got, const std::vector<double>& want, double tolerance,
                 const std::string& what) {
  ASSERT_EQ(got.size(), want.size()) << what;
  for (size_t i = 0; i < got.size(); ++i)
    EXPECT_NEAR(got[i], want[i], tolerance * std::max(1.0, std::abs(want[i]))) << what << " " << i;
}

TEST(ScheduleVectors, LevelsTimesAndTrajectoriesAreDiffusers) {
  const auto numbers = [](const io::Json& j) { return j.get<std::vector<double>>(); };
  const auto floats = [](const io::Json& j) { return j.get<std::vector<float>>(); };
  const std::vector<float> start = floats(vectors().at("x"));
  const auto width = static_cast<int64_t>(start.size());
  const float tanh = vectors().at("tanh"), wave = vectors().at("wave");
  size_t checked = 0;
  for (const io::Json& row : vectors().at("cases")) {
    const std::string what = io::json_text(row.at("config")) + " " + io::json_text(row.at("steps"));
    const int64_t first = row.at("start");
    const auto c = SchedulerConfig::from_json(row.at("config"));
    const std::vector<double> levels = c.schedule.levels(row.at("steps"), row.at("tokens"));
    std::vector<double> times = c.schedule.times(levels);
    if (times.empty()) times = levels;
    expect_near(levels, numbers(row.at("levels")), 2e-6, what + " levels");
    expect_near({times.begin(), times.end() - 1}, numbers(row.at("times")), 2e-6, what + " times");
    if (testing::Test::HasFailure()) return;
    Solver solver(c.solver, levels, first);
    Tensor x = Tensor::from(device(), std::span<const float>(start), {width});
    const io::Json& trajectory = row.at("x");
    for (int64_t i = first; i + 1 < static_cast<int64_t>(levels.size()); ++i) {
      const Tensor v = solver.direction(i, x, [&](const Tensor& at, int64_t k) {
        const double t = times[static_cast<size_t>(k)];
        return op::affine(op::unary(at, op::Unary::tanh), tanh,
                          wave * static_cast<float>(std::sin(3 * t)) + 0.1f);
      });
      x = solver.advance(i, x, v, [&](int64_t k) {
        const std::vector<float> noise = floats(vectors().at("noise").at(static_cast<size_t>(k)));
        return Tensor::from(device(), std::span<const float>(noise), {width});
      });
      const std::vector<float> host = x.to_host();
      expect_near({host.begin(), host.end()}, numbers(trajectory.at(static_cast<size_t>(i - first))), 1e-4,
                  what + " x after step " + std::to_string(i));
      if (testing::Test::HasFailure()) return;
    }
    ++checked;
  }
  EXPECT_GE(checked, 100u);
}

TEST(ScheduleVectors, SchedulesAreComfyUis) {
  for (const io::Json& row : vectors().at("comfyui")) {
    Schedule s;
    s.dynamic = !row.at("mu").is_null();
    if (s.dynamic) s.base_mu = s.max_mu = row.at("mu").get<double>();
    s.spacing = parse_spacing(row.at("schedule").get<std::string>());
    expect_near(s.levels(row.at("steps"), 4096), row.at("levels").get<std::vector<double>>(), 1e-7,
                io::json_text(row.at("schedule")) + io::json_text(row.at("steps")));
  }
}

TEST(ScheduleVectors, BetaQuantilesAreScipys) {
  for (const io::Json& row : vectors().at("beta_quantiles")) {
    const auto [p, a, b, want] = row.get<std::array<double, 4>>();
    EXPECT_NEAR(beta_quantile(p, a, b), want, 1e-12) << p << " " << a << " " << b;
    if (want > 0) {
      EXPECT_NEAR(beta_quantile(p, a, b) / want, 1, 1e-9) << p << " " << a << " " << b;
    }
  }
}

// A run that is left after any step and gone on with gives the same numbers.
TEST(ScheduleVectors, SamplersGoOnInTheMiddle) {
  const std::vector<double> levels{1, 0.9, 0.7, 0.5, 0.25, 0.1, 0};
  const Solver::Predict predict = [](const Tensor& x, int64_t i) {
    return op::affine(op::unary(x, op::Unary::tanh), 0.8f, 0.1f * static_cast<float>(i));
  };
  const Solver::Noise noise = [](int64_t i) {
    return op::normal(device(), {4}, 3, static_cast<uint64_t>(i));
  };
  for (const SamplerRow& row : samplers()) {
    for (const int order : {1, 2, 3}) {
      SolverOptions o = row.options;
      o.order = order;
      Solver whole(o, levels);
      Tensor x = op::normal(device(), {4}, 1, 0);
      Tensor other = x;
      Solver::State state;
      for (int64_t i = 0; i < 6; ++i) {
        x = whole.advance(i, x, whole.direction(i, x, predict), noise);
        Solver again(o, levels);
        again.restore(state);
        other = again.advance(i, other, again.direction(i, other, predict), noise);
        state = again.state();
        ASSERT_EQ(other.to_host(), x.to_host()) << row.name << " " << order << " " << i;
        EXPECT_LE(state.cleans.size(), whole.memory());
      }
    }
  }
}

TEST(ScheduleVectors, SamplersAreFoundByManyNames) {
  for (const SamplerRow& row : samplers()) {
    EXPECT_STREQ(sampler_row(row.name).name, row.name);
    EXPECT_STREQ(sampler_row(row.label).name, row.name);
  }
  EXPECT_STREQ(sampler_row("Euler A").name, "euler_a");
  EXPECT_STREQ(sampler_row("euler_ancestral").name, "euler_a");
  EXPECT_STREQ(sampler_row("uni-pc").name, "unipc");
  try {
    sampler_row("plms");
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("dpmpp_2m"), std::string::npos) << e.what();
  }
  EXPECT_THROW(parse_spacing("cosine"), Error);
  EXPECT_EQ(parse_spacing("kl_optimal"), Spacing::kl_optimal);
}

}  // namespace
}  // namespace vkflux
