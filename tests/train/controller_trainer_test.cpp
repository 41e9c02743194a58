// Training of the routing controller: its arithmetic, a task whose best routing is known, and checkpoints.
#include "train/controller/controller_trainer.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <limits>
#include <set>

#include "autograd/ops.h"
#include "autograd/tape.h"
#include "model/flux/transformer.h"
#include "model/io/file.h"
#include "tests/harness/gpu.h"
#include "tests/harness/tiny_pipeline.h"
#include "train/controller/reward.h"
#include "train/controller/sampling_task.h"
#include "vk/error.h"

namespace vkflux {
namespace {

namespace fs = std::filesystem;
using test::device;

TEST(Reinforce, BaselineFollowsTheSpecification) {
  RewardBaseline reference(-0.3, FloorOn::reward);
  reference.update(-1, -1);
  EXPECT_DOUBLE_EQ(reference.value(), -0.3);
  reference.update(0.1, 0.1);
  EXPECT_NEAR(reference.value(), -0.28, 1e-12);
  // Below the floor on average: the floor is left alone, and the baseline is the mean.
  RewardBaseline low(-0.3, FloorOn::quality);
  low.update(-1, -0.9);
  EXPECT_DOUBLE_EQ(low.value(), -1);
  // Above it on average: one bad picture counts as if its quality were at the floor.
  RewardBaseline high(-0.3, FloorOn::quality);
  high.update(-0.1, -0.1);
  high.update(-1.2, -1);
  EXPECT_NEAR(high.value(), 0.95 * -0.1 + 0.05 * -0.5, 1e-12);
}

TEST(Reinforce, TrajectoriesAreWeightedAndSummed) {
  EXPECT_DOUBLE_EQ(sigma_weight(1, 1), 0.1);
  EXPECT_DOUBLE_EQ(sigma_weight(0.4, 1), 0.6);
  EXPECT_DOUBLE_EQ(sigma_weight(0.1, 1), 0.9);
  const std::vector<std::pair<double, double>> steps{{1, 0.9}, {0.4, 0.4}, {0.1, 0.1}};
  const TrajectorySummary s = summarise_trajectory(steps, 0);
  EXPECT_DOUBLE_EQ(s.ttr_ratio_high_sigma, 0.9);
  EXPECT_DOUBLE_EQ(s.ttr_ratio_low_sigma, 0.1);
  EXPECT_DOUBLE_EQ(s.ttr_ratio_spread, 0.8);
  EXPECT_DOUBLE_EQ(s.sigma, 0.5);
  EXPECT_EQ(s.steps_per_trajectory, 3);
  EXPECT_FALSE(checkpoint_due(0, 9, 10) || checkpoint_due(10, 19, 10) || checkpoint_due(0, 5, 0));
  EXPECT_TRUE(checkpoint_due(9, 10, 10) && checkpoint_due(8, 12, 10));
}

// The gradients of the three functions by central differences.
TEST(Reinforce, GradientsAreThoseOfTheValues) {
  constexpr double h = 1e-5;
  for (const double x : {-3.0, -0.2, 0.0, 1.7}) {
    for (const bool full : {false, true}) {
      const double t =
          (trajectory_term(x + h, full, 0.7).value - trajectory_term(x - h, full, 0.7).value) / (2 * h);
      EXPECT_NEAR(trajectory_term(x, full, 0.7).gradient, t, 1e-8);
      const double w = (whole_run_term(x + h, full).value - whole_run_term(x - h, full).value) / (2 * h);
      EXPECT_NEAR(whole_run_term(x, full).gradient, w, 1e-8);
    }
    const double e = (decision_entropy(logistic(x + h)) - decision_entropy(logistic(x - h))) / (2 * h);
    EXPECT_NEAR(entropy_gradient(x), e, 1e-6);
  }
  EXPECT_EQ(trajectory_term(20, true, 1).gradient, 0);  // clamped
}

// Against all 2^n ways that the decisions can fall, and central differences.
TEST(Reinforce, ExpectedEfficiencyIsTheMeanOverAllDraws) {
  const std::vector<double> logits{-2.5, 0.3, 1.2, -0.4, 3};
  const auto brute = [](const std::vector<double>& x, double target) {
    double mean = 0;
    for (unsigned draw = 0; draw < 1u << x.size(); ++draw) {
      double p = 1, full = 0;
      for (size_t i = 0; i < x.size(); ++i) {
        const bool on = draw >> i & 1;
        p *= on ? logistic(x[i]) : 1 - logistic(x[i]);
        full += on;
      }
      mean += p * std::fabs(full / static_cast<double>(x.size()) - target);
    }
    return mean;
  };
  for (const double target : {0.0, 0.3, 0.5, 1.0}) {
    std::vector<double> p;
    for (const double x : logits) p.push_back(logistic(x));
    const ExpectedEfficiency e = expected_efficiency(p, target);
    EXPECT_NEAR(e.penalty, brute(logits, target), 1e-12);
    for (size_t i = 0; i < logits.size(); ++i) {
      std::vector<double> up = logits, down = logits;
      up[i] += 1e-5;
      down[i] -= 1e-5;
      EXPECT_NEAR(e.gradient[i], (brute(up, target) - brute(down, target)) / 2e-5, 1e-9);
    }
  }
}

TEST(Rewards, AreKnownByName) {
  EXPECT_EQ(make_reward("rmse")->name(), std::string("rmse"));
  try {
    make_reward("lpips");
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::unsupported);
  }
  EXPECT_THROW(make_reward("beauty"), Error);
  EXPECT_THROW(QualityLoss({{"rmse", -1}}), Error);
  EXPECT_FALSE(QualityLoss({{"rmse", 0}, {"cosine", 0}, {"lpips", 0}}).learns());
  EXPECT_THROW(QualityLoss({{"lpips", 0.5}}), Error);
}

TEST(Rewards, MeasureEveryPictureAlone) {
  const Tensor y = op::normal(device(), {3, 4, 2, 2}, 1, 0);
  const Tensor x = op::concat(
      {op::narrow(y, 0, 0, 1), op::affine(op::narrow(y, 0, 1, 1), 2), op::affine(op::narrow(y, 0, 2, 1), -1)},
      0);
  const QualityLoss quality({{"rmse", 0.5}, {"cosine", 2}});
  const QualityLoss::Value v = quality.each({x, y, {}, {}});
  const std::vector<float> cosine = v.terms.at("cosine_distance").to_host(),
                           rmse = v.terms.at("rmse").to_host();
  ASSERT_EQ(cosine.size(), 3u);
  EXPECT_EQ(cosine[0], 0);
  EXPECT_NEAR(cosine[1], 0, 1e-6);
  EXPECT_NEAR(cosine[2], 2, 1e-5);
  EXPECT_NEAR(rmse[0], 1e-4, 1e-6);
  EXPECT_NEAR(v.loss.to_host()[2], 0.5 * rmse[2] + 2 * cosine[2], 1e-5);
  // Together: the root of the mean over all, not the mean of the roots.
  const float whole = quality.whole({x, y, {}, {}}).terms.at("rmse").item();
  EXPECT_NEAR(whole, std::sqrt((rmse[0] * rmse[0] + rmse[1] * rmse[1] + rmse[2] * rmse[2]) / 3), 1e-5);
  const Tensor zero = Tensor::zeros(device(), {3, 4, 2, 2});
  for (const float d : quality.each({zero, y, {}, {}}).terms.at("cosine_distance").to_host())
    EXPECT_NEAR(d, 1, 2e-4);
  EXPECT_THROW(QualityLoss({{"rmse", 1}}, RewardOn::images).each({x, y, {}, {}}), Error);
}

// Three layers may be routed. Layer 0's student is harmless in the second half of the steps and bad before,
// layer 1's is always bad, layer 2's never: with half of all decisions wanted from students, the best plan
// is known.
class KnownBest : public RoutingTask {
 public:
  KnownBest() {
    for (const double sigma : {1.0, 0.75, 0.5, 0.25}) inputs_.push_back({sigma, 2, 64, 64});
  }
  const std::vector<RouteInput>& inputs() const override { return inputs_; }
  PlayedQuality play(int64_t iteration, const std::vector<RouteDecision>& decisions) override {
    PlayedQuality q;
    q.loss = 0.02 * static_cast<double>(iteration % 3);  // pictures differ
    for (size_t n = 0; n < decisions.size(); ++n) {
      EXPECT_EQ(decisions[n].student[3], 0) << "a layer without a student";
      q.loss += (n < 2 ? 0.3 : 0) * decisions[n].student[0] + 0.25 * decisions[n].student[1];
    }
    q.terms = {{"rmse", q.loss}};
    return q;
  }

 private:
  std::vector<RouteInput> inputs_;
};

const ControllerConfig kConfig{4, 16, 32};
const BackboneLayout kModel = test::student_layout(3, 64, 2, 4);

ControllerNet fresh_net(uint64_t seed = 1) {
  ControllerNet net(kConfig);
  const std::vector<Param> params = parameters(net);
  allocate(params, device());
  initialise(params, controller_init(kConfig), seed);
  return net;
}

ControllerTrainOptions toy_options(int64_t iterations, int64_t plans) {
  ControllerTrainOptions o;
  o.iterations = iterations;
  o.plans = plans;
  o.policy.lr = 5e-3;
  o.policy.reward = {0.5, 1, 0.02};
  o.log_every = 5;
  return o;
}

/// Remembers what it is told.
class Memory : public MetricSink {
 public:
  explicit Memory(std::vector<std::pair<int64_t, Metrics>>& rows) : rows_(rows) {}
  void write(int64_t step, const Metrics& metrics) override { rows_.emplace_back(step, metrics); }

 private:
  std::vector<std::pair<int64_t, Metrics>>& rows_;
};

void expect_best_routing(const ControllerTrainOptions& options) {
  KnownBest task;
  ControllerNet net = fresh_net();
  ControllerTrainer trainer(net, kModel, {1, 1, 1, 0}, task, options);
  double first = 0, last = 0;
  while (!trainer.finished()) {
    trainer.step();
    const double reward = trainer.latest().at("reward");
    if (trainer.steps_done() <= 25) first += reward / 25;
    if (trainer.steps_done() > options.iterations - 25) last += reward / 25;
  }
  EXPECT_GT(last, first + 0.3);
  EXPECT_NEAR(trainer.latest().at("expected_ttr_eligible"), 0.5, 0.17);
  const std::vector<float> x = net.forward(task.inputs()).to_host();
  for (size_t n = 0; n < 4; ++n) EXPECT_GT(x[n * 4 + 1], x[n * 4 + 2]) << "step " << n;
  EXPECT_GT(x[0], x[12]) << "layer 0 should prefer full attention early";
}

TEST(ControllerTrainer, FindsTheBestRoutingByComparingPlans) {
  expect_best_routing(toy_options(250, 4));
}

TEST(ControllerTrainer, FindsTheBestRoutingWithExactEfficiency) {
  for (const int64_t plans : {1, 2}) {
    SCOPED_TRACE(plans);
    ControllerTrainOptions options = toy_options(250, plans);
    options.policy.exact_efficiency = options.policy.entropy_gradient = true;
    expect_best_routing(options);
  }
}

TEST(ControllerTrainer, WritesEveryMetricAtItsCadence) {
  KnownBest task;
  ControllerNet net = fresh_net();
  std::vector<std::pair<int64_t, Metrics>> rows;
  ControllerTrainer trainer(net, kModel, {1, 1, 1, 0}, task, toy_options(12, 2));
  trainer.add_sink(std::make_unique<Memory>(rows));
  while (!trainer.finished()) trainer.step();
  trainer.complete();
  std::vector<int64_t> steps;
  for (const auto& [step, metrics] : rows) steps.push_back(step);
  EXPECT_EQ(steps, (std::vector<int64_t>{1, 5, 10, 12, 12}));
  std::set<std::string> names;
  for (const auto& [name, value] : rows[0].second) names.insert(name);
  for (const char* name : {"loss",
                           "rmse",
                           "efficiency_penalty",
                           "efficiency_penalty_weighted",
                           "mask_mean",
                           "probs_mean",
                           "full_attn_ratio",
                           "ttr_ratio",
                           "expected_full_attn_ratio",
                           "expected_ttr_ratio",
                           "full_attn_eligible",
                           "ttr_eligible",
                           "full_attn_overall",
                           "ttr_overall",
                           "expected_full_attn_eligible",
                           "expected_ttr_overall",
                           "actual_full_attn_ratio",
                           "actual_ttr_ratio_overall",
                           "target_ttr_ratio",
                           "target_full_attn_ratio",
                           "reward",
                           "reward_quality",
                           "baselined_reward",
                           "reward_baseline",
                           "policy_loss",
                           "reinforce_total_loss",
                           "lambda_eff",
                           "lambda_entropy",
                           "entropy",
                           "entropy_bonus",
                           "sigma",
                           "iteration",
                           "latent_index",
                           "width",
                           "height",
                           "step",
                           "eligible_ttr_layers",
                           "forced_full_layers",
                           "sigma_aware_training",
                           "ttr_ratio_high_sigma",
                           "ttr_ratio_low_sigma",
                           "ttr_ratio_spread",
                           "steps_per_trajectory"}) {
    EXPECT_EQ(names.count(std::string(kControllerMetrics) + "/" + name), 1u) << name;
  }
  EXPECT_EQ(names.count(std::string(kControllerMetrics) + "/lpips"), 0u) << "what isn't measured is absent";
  EXPECT_EQ(rows.back().second.front().first, "flux2ttr_controller/training_completed");
}

class ControllerCheckpoint : public ::testing::Test {
 protected:
  void SetUp() override {
    dir_ = fs::temp_directory_path() / ("vkflux_controller_trainer_" + std::to_string(getpid()));
    fs::create_directories(dir_);
  }
  void TearDown() override { fs::remove_all(dir_); }
  std::string path(const std::string& name) const { return (dir_ / name).string(); }
  fs::path dir_;
  KnownBest task_;
  std::vector<uint8_t> eligible_{1, 1, 1, 0};
};

TEST_F(ControllerCheckpoint, ResumedEqualsUninterrupted) {
  for (const bool whole_run : {false, true}) {
    ControllerTrainOptions options = toy_options(12, whole_run ? 1 : 2);
    options.sigma_aware = !whole_run;
    ControllerNet a = fresh_net(), b = fresh_net(), c = fresh_net(77);
    ControllerTrainer whole(a, kModel, eligible_, task_, options),
        first(b, kModel, eligible_, task_, options), second(c, kModel, eligible_, task_, options);
    while (!whole.finished()) whole.step();
    for (int i = 0; i < 5; ++i) first.step();
    first.save(path("half"));
    second.load(path("half"));
    EXPECT_EQ(second.steps_done(), 5);
    while (!second.finished()) second.step();
    whole.save(path("whole"));
    second.save(path("resumed"));
    EXPECT_EQ(io::read_file(path("whole")), io::read_file(path("resumed"))) << whole_run;
    EXPECT_EQ(load_controller(device(), path("whole"), kModel)->forward(task_.inputs()).to_host(),
              a.forward(task_.inputs()).to_host());
  }
}

TEST_F(ControllerCheckpoint, AnUpdateThatIsNotFiniteIsNeverSaved) {
  ControllerNet net = fresh_net();
  ControllerTrainOptions options = toy_options(1, 1);
  options.policy.lr = std::numeric_limits<double>::infinity();
  ControllerTrainer trainer(net, kModel, eligible_, task_, options);
  trainer.step();
  EXPECT_THROW(trainer.save(path("last")), Error);
  EXPECT_FALSE(fs::exists(path("last")));
}

TEST_F(ControllerCheckpoint, AnotherRunIsRefusedByName) {
  ControllerNet a = fresh_net(), b = fresh_net();
  ControllerTrainer writer(a, kModel, eligible_, task_, toy_options(4, 1));
  writer.step();
  writer.save(path("c"));
  ControllerTrainOptions options = toy_options(4, 2);
  options.seed = 99;
  options.policy.lr = 0.5;
  ControllerTrainer reader(b, kModel, {1, 1, 0, 0}, task_, options);
  try {
    reader.load(path("c"));
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::invalid_argument);
    for (const char* part :
         {"plans is 1 in the file and 2", "and 99 in this run", "lr is ", "and 0.5 in this run",
          "layers with a student is [1,1,1,0] in the file and [1,1,0,0] in this run"}) {
      EXPECT_NE(std::string(e.what()).find(part), std::string::npos) << part << " in " << e.what();
    }
  }
  reader.inputs().accept_changes();
  reader.load(path("c"));
  EXPECT_EQ(reader.steps_done(), 1);
}

TEST_F(ControllerCheckpoint, OfAnotherNetworkIsRefusedAndChangesNothing) {
  ControllerNet a = fresh_net(), b = fresh_net(5);
  ControllerTrainer writer(a, kModel, eligible_, task_, toy_options(4, 1));
  writer.step();
  writer.save(path("c"));
  const BackboneLayout other = test::student_layout(24, 64, 2, 4);
  ControllerTrainer reader(b, other, eligible_, task_, toy_options(4, 1));
  const std::vector<float> before = b.forward(task_.inputs()).to_host();
  try {
    reader.load(path("c"));
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("3"), std::string::npos) << e.what();
    EXPECT_NE(std::string(e.what()).find("24"), std::string::npos) << e.what();
  }
  std::string cut = io::read_file(path("c"));
  cut.resize(cut.size() - 100);
  io::atomic_write(path("cut"), cut);
  ControllerTrainer third(b, kModel, eligible_, task_, toy_options(4, 1));
  EXPECT_THROW(third.load(path("cut")), Error);
  EXPECT_EQ(b.forward(task_.inputs()).to_host(), before);
  EXPECT_EQ(third.steps_done(), 0);
  EXPECT_THROW(ControllerTrainer(a, kModel, {0, 0, 0, 0}, task_, toy_options(4, 1)), Error);
}

// --- sampling a real transformer, with a stand-in for the students

class MeanOfValues : public Attention {
 public:
  Tensor forward(const AttentionCall& call) override {
    return op::expand(op::mean(call.v, {2}, true), call.v.shape());
  }
  Cost cost(const AttentionShape&) const override { return {}; }
};

Flux1Config tiny_flux() {
  Flux1Config c;
  c.in_channels = c.out_channels = 16;
  c.vec_in_dim = 12;
  c.context_in_dim = 20;
  c.hidden = 32;
  c.mlp_hidden = 48;
  c.heads = 2;
  c.head_dim = 16;
  c.depth = 1;
  c.depth_single = 2;
  c.axes_dim = {4, 6, 6};
  c.guidance = false;
  return c;
}

struct TinyTask {
  Flux1 model{tiny_flux()};
  QualityLoss quality;
  std::unique_ptr<SamplingTask> task;

  TinyTask() {
    const auto params = parameters(model);
    allocate(params, device());
    initialise(
        params,
        [](const Param& p) {
          return p.name.ends_with("scale") ? Init{Init::Kind::constant, 1} : Init{Init::Kind::normal, 0.15f};
        },
        4);
    for (const int layer : {1, 2})
      model.attention().set(layer, AttentionKind::hkr, std::make_shared<MeanOfValues>());
    SamplingTaskOptions o;
    o.sampling.levels = {1, 0.6, 0.3, 0};
    o.sampling.cfg = 2;
    o.sampling.width = 12;
    o.sampling.height = 8;
    o.images = 2;
    o.seeds = 2;
    const Condition prompts{{"txt", op::normal(device(), {3, 4, 20}, 5, 0)},
                            {"y", op::normal(device(), {3, 12}, 6, 0)}},
        empty{{"txt", op::normal(device(), {1, 4, 20}, 7, 0)}, {"y", op::normal(device(), {1, 12}, 8, 0)}};
    const ModelInfo info{model.layout(), 2, Schedule::flux1_schnell(), {}};
    task = std::make_unique<SamplingTask>(model, info, nullptr, prompts, empty, quality, o);
  }
  std::vector<RouteDecision> plan(std::vector<uint8_t> student) const {
    return FixedRouter(std::move(student)).plan(task->inputs(), 0);
  }
};

TEST(SamplingTask, ComparesRoutedWithFullSampling) {
  TinyTask t;
  EXPECT_EQ(t.task->pictures(), 6);
  EXPECT_EQ(t.task->groups(), 3);
  EXPECT_EQ(t.task->inputs().size(), 3u);
  EXPECT_EQ(t.task->inputs()[1].sigma, 0.6);
  const PlayedQuality full = t.task->play(0, t.plan({0, 0})), routed = t.task->play(0, t.plan({1, 1}));
  EXPECT_EQ(full.terms.at("cosine_distance"), 0) << "full routing is full sampling, bit for bit";
  EXPECT_NEAR(full.terms.at("rmse"), 1e-4, 1e-7);
  EXPECT_GT(routed.loss, 10 * full.loss);
  EXPECT_EQ(routed.each.size(), 2u);
  EXPECT_NEAR((routed.each[0] + routed.each[1]) / 2, routed.loss, 1e-9);
  // The same group is the same whatever was played before.
  TinyTask other;
  other.task->play(2, other.plan({1, 0}));
  other.task->play(1, other.plan({1, 1}));
  EXPECT_EQ(other.task->play(0, other.plan({1, 1})).each, routed.each);
  t.model.attention().set(2, AttentionKind::hkr, nullptr);
  t.task->play(0, t.plan({1, 1}));
  EXPECT_FALSE(t.task->refusals().empty());
  EXPECT_THROW(t.task->play(0, {}), Error);
}

}  // namespace
}  // namespace vkflux
