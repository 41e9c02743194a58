// Online distillation on attention calls made up here: it learns, repeats, resumes, and survives what fails.
#include "train/distill/distiller.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <limits>
#include <random>

#include "autograd/ops.h"
#include "model/io/file.h"
#include "tests/harness/gpu.h"
#include "tests/harness/tiny_pipeline.h"
#include "vk/error.h"

namespace vkflux::test {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kHead = 16, kHeads = 2, kTokens = 14, kText = 4;
const BackboneLayout kModel = student_layout(kHeads, kHead, 1, 3);

DistillOptions small_options(int64_t updates) {
  DistillOptions o;
  DistillSettings& s = o.settings;
  s.steps = updates;
  s.feature_dim = 32;
  s.learning_rate = 3e-3;
  s.landmark_fraction = 0.25;
  s.sizes.landmark_min = 2;
  s.sizes.query_cap = 8;
  s.replay_buffer_size = 3;
  s.readiness = {0.2, 6};
  s.log_every = 1;
  o.seed = 7;
  return o;
}

/// Calls of a sampling run of `kSteps` steps, layers 0 (double) to 3.
class Calls {
 public:
  static constexpr int kSteps = 4;
  static float sigma(int64_t step) { return 1 - static_cast<float>(step % kSteps) / kSteps; }
  /// A step as a distillation makes it.
  void run(AttentionBank& bank, Distiller& distiller, int64_t step) {
    const RoutePlan plan = distiller.begin_step(step, sigma(step));
    AttentionRun run(device(), bank, {&distiller});
    run.step(plan, [&] {
      calls(run, step);
      return Tensor();
    });
  }
  std::vector<std::vector<float>> outputs, full;

 private:
  void calls(AttentionRun& run, int64_t step) {
    TokenLayout tokens;
    tokens.text = kText;
    tokens.image = kTokens - kText;
    StepInfo info;
    info.index = static_cast<int>(step % kSteps);
    info.count = kSteps;
    info.sigma = sigma(step);
    info.cfg_scale = 2;
    outputs.clear();
    full.clear();
    const AttentionPass pass = run.pass(1, tokens);
    for (int layer = 0; layer < static_cast<int>(kModel.layers.size()); ++layer) {
      const auto draw = [&](uint64_t what) {
        return op::normal(device(), {1, kHeads, kTokens, kHead}, static_cast<uint64_t>(step),
                          static_cast<uint64_t>(layer) * 3 + what);
      };
      // Queries like their keys and values that follow from these: there is something to learn.
      const Tensor k = draw(1), q = op::add(k, op::affine(draw(0), 0.5f)),
                   v = op::add(op::affine(k, 0.5f, 0.3f), op::affine(draw(2), 0.2f));
      const AttentionCall call{q, k, v, tokens, layer, info};
      outputs.push_back(pass.forward(call).to_host());
      full.push_back(FullAttention().forward(call).to_host());
    }
  }
};

class DistillerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    dir_ = fs::temp_directory_path() / ("vkflux_distiller_" + std::to_string(getpid()));
    fs::create_directories(dir_);
  }
  void TearDown() override { fs::remove_all(dir_); }
  std::string path(const std::string& name) const { return (dir_ / name).string(); }
  static void save(const Distiller& d, const std::string& to) {
    std::vector<io::TensorData> tensors;
    std::map<std::string, std::string> metadata;
    d.save(tensors, metadata, true);
    io::write_safetensors(to, tensors, metadata);
  }
  /// Steps [first, last) or until finished; the step reached.
  int64_t sample(Distiller& d, int64_t first, int64_t last) {
    d.attach(bank_);
    Calls calls;
    int64_t step = first;
    for (; step < last && !d.finished(); ++step) {
      calls.run(bank_, d, step);
      d.end_step();
    }
    d.detach();
    return step;
  }
  AttentionBank bank_{kModel.layers};
  fs::path dir_;
};

class Collect : public MetricSink {
 public:
  explicit Collect(std::vector<Metrics>& rows) : rows_(rows) {}
  void write(int64_t, const Metrics& metrics) override { rows_.push_back(metrics); }

 private:
  std::vector<Metrics>& rows_;
};

double find(const Metrics& row, const std::string& name) {
  for (const auto& [key, value] : row) {
    if (key == name) return value;
  }
  ADD_FAILURE() << "no metric " << name;
  return NAN;
}

TEST_F(DistillerTest, StudentsBecomeReadyAndReportIt) {
  DistillOptions o = small_options(120);
  o.settings.readiness.threshold = 0.6;
  Distiller d(device(), kModel, o);
  std::vector<Metrics> rows;
  d.add_sink(std::make_unique<Collect>(rows));
  std::string said;
  d.on_message([&](const std::string& line) { said += line + "\n"; });
  sample(d, 0, 500);
  EXPECT_TRUE(d.finished());
  EXPECT_EQ(d.updates_done(), 120);
  EXPECT_EQ(d.students().ready(), (std::vector<int>{0, 1, 2}));
  ASSERT_EQ(rows.size(), 120u);
  EXPECT_LT(find(rows.back(), "flux2ttr/global/ema_cosine_dist_max"), o.settings.readiness.threshold);
  const auto mean = [&](size_t from) {
    double sum = 0;
    for (size_t i = from; i < from + 30; ++i) sum += find(rows[i], "flux2ttr/global/cosine_similarity_p50");
    return sum / 30;
  };
  EXPECT_GT(mean(90), mean(0) + 0.03);
  EXPECT_EQ(find(rows.back(), "flux2ttr/global/steps_remaining"), 0);
  EXPECT_EQ(find(rows.back(), "flux2ttr/global/layers_ready_ratio"), 1);
  EXPECT_GT(find(rows.back(), "flux2ttr/global/pareto_frontier"), 2);
  int64_t averages = 0;
  for (const auto& [name, value] : rows.back()) averages += name.find("/avg_loss") != std::string::npos;
  EXPECT_EQ(averages, 1);
  EXPECT_NE(said.find("single_blocks.2 is ready"), std::string::npos);
  EXPECT_NE(said.find("update 120/120"), std::string::npos);
  // Round-robin: no layer is left behind.
  for (const auto& [i, s] : d.students().layers)
    EXPECT_NEAR(static_cast<double>(s->readiness.updates), 40, 3);
}

TEST_F(DistillerTest, TeacherAnswersUntilReadyAndWithoutPreview) {
  DistillOptions o = small_options(100000);
  o.settings.readiness.threshold = 2;  // ready as soon as there were enough updates
  for (bool preview : {false, true}) {
    o.settings.preview = preview;
    Distiller d(device(), kModel, o);
    d.attach(bank_);
    int64_t student_answers = 0;
    for (int64_t step = 0; step < 16; ++step) {
      Calls calls;
      calls.run(bank_, d, step);
      for (size_t layer = 0; layer < calls.outputs.size(); ++layer) {
        const bool student = calls.outputs[layer] != calls.full[layer];
        const std::string& name = kModel.layers[layer].name;
        const bool serves = preview && layer > 0 && d.swapped().count(name) != 0 &&
                            d.students().layers.at(name)->readiness.ready;
        EXPECT_EQ(student, serves) << "step " << step << " " << name;
        student_answers += student;
      }
    }
    EXPECT_EQ(student_answers > 0, preview);
  }
}

TEST_F(DistillerTest, RepeatsAndResumesBitForBit) {
  Distiller whole(device(), kModel, small_options(60)), again(device(), kModel, small_options(60));
  sample(whole, 0, 1000);
  sample(again, 0, 1000);
  save(whole, path("whole"));
  save(again, path("again"));
  EXPECT_EQ(io::read_file(path("whole")), io::read_file(path("again")));

  Distiller first(device(), kModel, small_options(60)), second(device(), kModel, small_options(60));
  const int64_t step = sample(first, 0, 7);
  EXPECT_FALSE(first.finished());
  save(first, path("half"));
  second.load(path("half"));
  save(second, path("half2"));
  EXPECT_EQ(io::read_file(path("half")), io::read_file(path("half2")));
  sample(second, step, 1000);
  save(second, path("resumed"));
  EXPECT_EQ(io::read_file(path("whole")), io::read_file(path("resumed")));
}

TEST_F(DistillerTest, AnotherShapeIsRefusedAndDamageChangesNothing) {
  Distiller d(device(), kModel, small_options(20));
  sample(d, 0, 1000);
  save(d, path("good"));
  const auto refusal = [&](const BackboneLayout& model, int64_t features) {
    DistillOptions o = small_options(20);
    o.settings.feature_dim = features;
    Distiller other(device(), model, o);
    try {
      other.load(path("good"));
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::invalid_argument) << e.what();
      return std::string(e.what());
    }
    ADD_FAILURE() << "not refused";
    return std::string();
  };
  EXPECT_NE(refusal(kModel, 64).find("feature_dim is 32 in the file and 64 in this run"), std::string::npos);
  EXPECT_NE(refusal(student_layout(kHeads, kHead, 1, 4), 32).find("3 in the file and 4 in the model"),
            std::string::npos);

  const std::string good = io::read_file(path("good"));
  Distiller victim(device(), kModel, small_options(20));
  save(victim, path("before"));
  std::mt19937 rng(11);
  for (int i = 0; i < 30; ++i) {
    io::atomic_write(path("bad"), good.substr(0, rng() % good.size()));
    EXPECT_THROW(victim.load(path("bad")), Error);
  }
  save(victim, path("after"));
  EXPECT_EQ(io::read_file(path("before")), io::read_file(path("after")));
}

TEST_F(DistillerTest, StudentsThatAreNotFiniteAreNeverSaved) {
  Distiller d(device(), kModel, small_options(20));
  for (const auto& [name, student] : d.students().layers) {
    const Tensor& x = *parameters(*student->layer).back().tensor;
    const std::vector<float> before = x.to_host();
    std::vector<float> bad = before;
    bad.back() = NAN;
    x.copy_from_host(std::span<const float>(bad));
    try {
      save(d, path("bad"));
      ADD_FAILURE() << name;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::invalid_argument);
      EXPECT_NE(std::string(e.what()).find(name), std::string::npos) << e.what();
    }
    x.copy_from_host(std::span<const float>(before));
  }
  EXPECT_FALSE(fs::exists(path("bad")));
  EXPECT_NO_THROW(save(d, path("good")));
}

class Starved : public Distiller {
 public:
  using Distiller::Distiller;
  int failures = 0, calls = 0;

 protected:
  PendingUpdate update(const std::string& layer, const TeacherSample& sample) override {
    if (++calls <= failures) throw Error(ErrorCode::out_of_device_memory, "simulated");
    return Distiller::update(layer, sample);
  }
};

TEST_F(DistillerTest, OutOfMemoryWalksTheLadderAndGoesOn) {
  DistillOptions o = small_options(12);
  o.settings.sizes = {128, 256, 1024, 64, 0};
  Starved d(device(), kModel, o);
  d.failures = 2;
  sample(d, 0, 1000);
  EXPECT_EQ(d.updates_done(), 12);
  const TrainingSizes want{32, 64, 256, 64, 256};
  EXPECT_EQ(d.options().settings.sizes, want);
  EXPECT_EQ(d.students().layers.at("single_blocks.1")->layer->options().key_chunk, 256);
  EXPECT_EQ(d.students().layers.at("single_blocks.1")->layer->options().landmarks.max, 256);
}

TEST_F(DistillerTest, HopelessMemoryEndsTrainingButNotSampling) {
  Starved d(device(), kModel, small_options(12));
  d.failures = 1 << 20;
  d.attach(bank_);
  int64_t step = 0;
  for (; step < 60 && !d.finished(); ++step) {
    Calls calls;
    calls.run(bank_, d, step);
    EXPECT_EQ(calls.outputs, calls.full);
  }
  EXPECT_TRUE(d.finished());
  EXPECT_EQ(d.updates_done(), 0);
  EXPECT_EQ(d.totals().remaining, 12);
  Calls calls;
  calls.run(bank_, d, step);
  EXPECT_EQ(calls.outputs, calls.full);
}

TEST_F(DistillerTest, DetachingRestoresWhatTheBankHad) {
  class Zero final : public Attention {
    Tensor forward(const AttentionCall& call) override { return op::affine(call.v, 0); }
    Cost cost(const AttentionShape&) const override { return {}; }
  };
  const auto before = std::make_shared<Zero>();
  bank_.set(2, AttentionKind::hkr, before);
  {
    Distiller d(device(), kModel, small_options(12));
    d.attach(bank_);
    EXPECT_NE(bank_.find(2, AttentionKind::hkr), before);
    EXPECT_NE(bank_.find(1, AttentionKind::hkr), nullptr);
  }
  EXPECT_EQ(bank_.find(2, AttentionKind::hkr), before);
  EXPECT_EQ(bank_.find(1, AttentionKind::hkr), nullptr);
}

class Poisoned : public Distiller {
 public:
  using Distiller::Distiller;

 protected:
  PendingUpdate update(const std::string& layer, const TeacherSample& sample) override {
    TeacherSample bad = sample;
    bad.teacher = Tensor::full(device(), sample.teacher.shape(), std::numeric_limits<float>::infinity());
    return Distiller::update(layer, bad);
  }
};

TEST_F(DistillerTest, UpdatesThatAreNotFiniteChangeNothing) {
  Poisoned d(device(), kModel, small_options(12));
  save(d, path("before"));
  const auto weights = [&] {
    return d.students().layers.at("single_blocks.0")->layer->phi_q.linears[0].weight.to_host();
  };
  const std::vector<float> before = weights();
  EXPECT_THROW(sample(d, 0, 1000), Error);
  EXPECT_EQ(weights(), before);
  EXPECT_EQ(d.updates_done(), 0);
}

}  // namespace
}  // namespace vkflux::test
