// The parts that all trainers share: the optimisation step, checkpoints, the loop.
#include "train/optimise.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "autograd/ops.h"
#include "model/io/json.h"
#include "tests/harness/gpu.h"
#include "tests/harness/temp_folder.h"
#include "train/checkpoint.h"
#include "train/run_loop.h"
#include "vk/error.h"

namespace vkflux::test {
namespace {

struct TwoGroups {
  Tensor a = Tensor::full(device(), {3, 2}, 0.5f), b = Tensor::full(device(), {5}, -0.25f);
  Optimiser optimiser;
  explicit TwoGroups(const OptimiserLayout& layout = {true, false, {0, 1}})
      : optimiser(device(), {{"a", &a}, {"b", &b}}, layout) {}
  Tensor gradient() {
    return gradients({&optimiser}, 2, [&](int64_t micro) {
      const Tensor square = op::unary(a, op::Unary::square);
      return Seeded{op::add(op::sum_all(square), op::sum_all(b)),
                    Tensor::full(device(), {}, micro ? 1.0f : 2.0f)};
    });
  }
};

TEST(Optimiser, SumsMicroBatchesAndStepsGroupsApart) {
  TwoGroups t;
  const float norm = t.gradient().item();
  EXPECT_NEAR(norm, std::sqrt(6 * 3.0f * 3.0f + 5 * 3.0f * 3.0f), 1e-4);
  EXPECT_EQ(t.optimiser.grad()[1].to_host(), std::vector<float>(5, 3));
  t.optimiser.apply({0.1, 0.9, 0.999, 1e-8, 0}, gradient_scale(t.gradient(), 0), 1);
  EXPECT_EQ(t.a.to_host(), std::vector<float>(6, 0.5f)) << "the other group";
  EXPECT_NEAR(t.b.to_host()[0], -0.35f, 1e-5);
  EXPECT_EQ(t.optimiser.steps(0), 0);
  EXPECT_EQ(t.optimiser.steps(1), 1);
  t.optimiser.with_average([&] { EXPECT_EQ(t.b.to_host()[0], -0.25f); });
  EXPECT_NEAR(t.b.to_host()[0], -0.35f, 1e-5);
  EXPECT_THROW(TwoGroups({false, false, {1, 0}}), Error);
}

TEST(Optimiser, DecaysMatricesOnlyWhereAsked) {
  TwoGroups t({false, true, {}});
  t.optimiser.grad().flat().fill_zero();
  t.optimiser.apply({0.1, 0.9, 0.999, 1e-8, 0.5}, {});
  EXPECT_NEAR(t.a.to_host()[0], 0.475f, 1e-6);
  EXPECT_EQ(t.b.to_host()[0], -0.25f);
}

TEST(Optimiser, AStepThatIsNotFiniteChangesNothing) {
  for (const double clip : {0.0, 1.0}) {
    TwoGroups t;
    const Tensor nan = Tensor::full(device(), {}, std::numeric_limits<float>::quiet_NaN());
    t.optimiser.apply({}, gradient_scale(t.gradient(), clip, nan));
    EXPECT_EQ(t.a.to_host(), std::vector<float>(6, 0.5f));
    EXPECT_EQ(t.optimiser.m().flat().to_host(), std::vector<float>(128, 0));
    t.optimiser.take_back();
    EXPECT_EQ(t.optimiser.steps(), 0);
  }
}

TEST(Checkpoint, IsReadWholeBeforeAnythingChanges) {
  const TempFolder folder;
  const StateNames names{"p.", "m.", "v.", "e."};
  TwoGroups from, to;
  from.optimiser.apply({}, gradient_scale(from.gradient(), 1));
  const std::vector<float> before = to.a.to_host();
  for (const char* damage : {"", "v.b", "e.a"}) {
    std::vector<io::TensorData> tensors;
    append_state(from.optimiser, names, tensors);
    for (io::TensorData& t : tensors) {
      if (t.name == damage) t = io::tensor_data(t.name, {1}, std::vector<float>{NAN});
    }
    io::write_safetensors(folder.file(std::string("x") + damage), tensors, {{"count", "7"}, {"bad", "-1"}});
  }
  const io::SafetensorsFile good(folder.file("x"));
  for (const char* damage : {"v.b", "e.a"}) {
    PendingValues values;
    EXPECT_THROW(
        values.take(io::SafetensorsFile(folder.file(std::string("x") + damage)), to.optimiser, names), Error);
  }
  EXPECT_EQ(to.a.to_host(), before);
  PendingValues values;
  values.take(good, to.optimiser, names);
  EXPECT_EQ(to.a.to_host(), before);
  values.apply();
  EXPECT_EQ(to.a.to_host(), from.a.to_host());
  EXPECT_EQ(to.optimiser.v().flat().to_host(), from.optimiser.v().flat().to_host());
  EXPECT_EQ(counter_of(good, "count"), 7);
  EXPECT_THROW(counter_of(good, "bad"), Error);
  EXPECT_THROW(counter_of(good, "absent"), Error);
}

/// Counts by three up to twenty, in a text file.
class Counter final : public Resumable {
 public:
  int64_t count = 0, saves = 0;
  int64_t done() const override { return count; }
  bool finished() const override { return count >= 20; }
  void step() override { count = std::min<int64_t>(20, count + 3); }
  void add_sink(std::unique_ptr<MetricSink>) override {}
  void save(const std::string& path) override {
    ++saves;
    io::atomic_write(path, std::to_string(count));
  }
  void load(const std::string& path) override { count = std::stoll(io::read_file(path)); }
};

TEST(RunLoop, ResumesSavesAndStops) {
  const TempFolder folder;
  RunLoopOptions o;
  o.folder.path = folder.file("run/");
  o.save_every = 5;
  o.stop_after = 7;
  o.parameters = {{"lr", 0.5}, {"sizes", {1, 2}}, {"comet_api_key", "secret"}};
  Counter first, second;
  const auto never = [] { return false; };
  EXPECT_FALSE(run_to_end(
      first, o, never, [] {}, [] {}));
  EXPECT_EQ(first.count, 9);
  EXPECT_EQ(first.saves, 2) << "at 6, where 5 was passed, and where it stopped";
  const io::Json want{{"run", "run"}, {"lr", 0.5}, {"sizes", "1,2"}};
  EXPECT_EQ(io::read_json(o.folder.file("params.json")), want);

  int64_t started = -1;
  std::vector<int64_t> steps;
  const auto at_15 = [&] { return second.count == 15; };
  EXPECT_FALSE(run_to_end(
      second, o, at_15, [&] { started = second.count; }, [&] { steps.push_back(second.count); }));
  EXPECT_EQ(started, 9);
  EXPECT_EQ(steps, (std::vector<int64_t>{12, 15}));
  EXPECT_TRUE(run_to_end(
      second, o, never, [] {}, [] {}));
  EXPECT_EQ(io::read_file(o.folder.checkpoint()), "20");
  o.fresh = true;
  Counter fresh;
  EXPECT_FALSE(run_to_end(
      fresh, o, never, [] {}, [] {}));
  EXPECT_EQ(fresh.count, 9);
}

TEST(RunFolder, HasAName) {
  EXPECT_EQ(RunFolder{"runs/ttr"}.name(), "ttr");
  EXPECT_EQ(RunFolder{"runs/ttr//"}.name(), "ttr");
  EXPECT_EQ(RunFolder{""}.name(), "default");
}

}  // namespace
}  // namespace vkflux::test
