// Training is a function of its seed: twice the same, resumed the same, and no failure loses the last
// checkpoint.
#include "train/trainer.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <limits>
#include <random>

#include "app/cli/cli.h"
#include "autograd/ops.h"
#include "model/io/file.h"
#include "model/io/png.h"
#include "tests/harness/gpu.h"
#include "vk/error.h"

namespace vkflux::test {
namespace {

namespace fs = std::filesystem;

// Fits y = x w to a fixed matrix; small, but it uses every part of the loop.
class Toy : public Trainer {
 public:
  Toy(const TrainOptions& options, std::string name = "toy") : Trainer(device(), options) {
    inputs_.set("name", name);
    w_ = Tensor::full(device(), {5, 3}, 0.1f);
    b_ = Tensor::zeros(device(), {5});
    adopt({{"w", &w_}, {"b", &b_}});
  }
  std::vector<float> weights() const { return w_.to_host(); }
  Tensor& w() { return w_; }

 protected:
  Tensor loss(int64_t step, int64_t micro, std::map<std::string, Tensor>& report) override {
    const Tensor x =
        op::normal(device_, {7, 3}, options_.seed, static_cast<uint64_t>(step * options_.accumulate + micro));
    const Tensor y = op::linear(x, w_, b_), want = op::linear(x, Tensor::full(device_, {5, 3}, 0.7f));
    report["size"] = op::mean_all(y);
    return op::mse(y, want);
  }

 private:
  Tensor w_, b_;
};

TrainOptions toy_options() {
  TrainOptions o;
  o.steps = 20;
  o.warmup = 3;
  o.accumulate = 2;
  o.lr = 0.05f;
  o.ema = 0.9f;
  o.log_every = 4;
  return o;
}

class TrainerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    dir_ = fs::temp_directory_path() / ("vkflux_trainer_" + std::to_string(getpid()));
    fs::create_directories(dir_);
  }
  void TearDown() override { fs::remove_all(dir_); }
  std::string path(const std::string& name) const { return (dir_ / name).string(); }
  fs::path dir_;
};

TEST_F(TrainerTest, LearnsAndRepeats) {
  Toy a(toy_options()), b(toy_options());
  while (!a.finished()) a.step();
  while (!b.finished()) b.step();
  a.save(path("a"));
  b.save(path("b"));
  EXPECT_EQ(io::read_file(path("a")), io::read_file(path("b")));
  EXPECT_EQ(a.latest().front().first, "grad_norm");
  for (float w : a.weights()) EXPECT_NEAR(w, 0.7f, 0.25f);
}

TEST_F(TrainerTest, ResumedEqualsUninterrupted) {
  Toy whole(toy_options()), first(toy_options()), second(toy_options());
  while (!whole.finished()) whole.step();
  for (int i = 0; i < 7; ++i) first.step();
  first.save(path("half"));
  second.load(path("half"));
  EXPECT_EQ(second.steps_done(), 7);
  while (!second.finished()) second.step();
  whole.save(path("whole"));
  second.save(path("resumed"));
  EXPECT_EQ(io::read_file(path("whole")), io::read_file(path("resumed")));
}

TEST_F(TrainerTest, EmaWeightsAreLentAndGivenBack) {
  Toy t(toy_options());
  for (int i = 0; i < 5; ++i) t.step();
  const std::vector<float> trained = t.weights();
  std::vector<float> averaged;
  t.with_ema([&] { averaged = t.weights(); });
  EXPECT_NE(trained, averaged);
  EXPECT_EQ(trained, t.weights());
}

TEST_F(TrainerTest, OtherSettingsAreRefusedByName) {
  Toy a(toy_options()), b(toy_options(), "another");
  a.step();
  a.save(path("a"));
  const std::vector<float> before = b.weights();
  try {
    b.load(path("a"));
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::invalid_argument);
    EXPECT_NE(std::string(e.what()).find("another"), std::string::npos);
    EXPECT_NE(std::string(e.what()).find("toy"), std::string::npos);
  }
  EXPECT_EQ(before, b.weights());
}

// The loss of the last step is that of the parameters before its update.
TEST_F(TrainerTest, AnUpdateThatIsNotFiniteIsNeverSaved) {
  for (const bool averages : {false, true}) {
    TrainOptions o = toy_options();
    o.ema = averages ? 0.9f : 0;
    Toy t(o);
    t.step();
    t.save(path("good"));
    const std::string good = io::read_file(path("good"));
    Tensor x = averages ? Tensor() : t.w();
    if (averages) t.with_ema([&] { x = t.w(); });
    x.copy_from_host(std::span<const float>(std::vector<float>(15, std::numeric_limits<float>::infinity())));
    try {
      t.save(path("good"));
      FAIL();
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::invalid_argument);
      EXPECT_NE(std::string(e.what()).find(averages ? "ema.w isn't finite" : "param.w isn't finite"),
                std::string::npos)
          << e.what();
    }
    EXPECT_EQ(io::read_file(path("good")), good);
  }
  TrainOptions o = toy_options();
  o.lr = std::numeric_limits<float>::infinity();
  o.steps = 1;
  Toy last(o);
  last.step();
  EXPECT_THROW(last.save(path("last")), Error);
  EXPECT_FALSE(fs::exists(path("last")));
}

TEST_F(TrainerTest, AGradientThatIsNotFiniteIsAnError) {
  class Steep : public Toy {
   public:
    using Toy::Toy;

   protected:
    Tensor loss(int64_t, int64_t, std::map<std::string, Tensor>&) override {
      // sqrt(0): finite, its slope isn't.
      return op::unary(op::affine(op::mean_all(op::unary(w(), op::Unary::square)), 0), op::Unary::sqrt);
    }
  };
  Steep t(toy_options());
  const auto run = [&] {
    while (!t.finished()) t.step();
  };
  try {
    run();
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("the gradient became"), std::string::npos) << e.what();
  }
}

TEST_F(TrainerTest, CorruptCheckpointsChangeNothing) {
  Toy a(toy_options());
  a.step();
  a.save(path("a"));
  const std::string good = io::read_file(path("a"));
  Toy victim(toy_options());
  for (int i = 0; i < 3; ++i) victim.step();
  victim.save(path("before"));
  const std::string before = io::read_file(path("before"));
  ASSERT_NE(before, good);
  std::mt19937 rng(1);
  int refused = 0;
  for (int i = 0; i < 40; ++i) {
    std::string bad = good;
    if (i % 2) {
      bad.resize(rng() % bad.size());
    } else {
      bad[rng() % 600] = static_cast<char>(rng());
    }
    io::atomic_write(path("bad"), bad);
    try {
      victim.load(path("bad"));
      EXPECT_EQ(i % 2, 0) << "a file cut short was read";
      victim.load(path("before"));  // damage in the numbers themselves can't be seen
    } catch (const Error&) {
      ++refused;
      victim.save(path("after"));
      EXPECT_TRUE(io::read_file(path("after")) == before) << i;
    }
  }
  EXPECT_GE(refused, 25);
  victim.load(path("a"));
  victim.save(path("after"));
  EXPECT_TRUE(io::read_file(path("after")) == good);
}

TEST_F(TrainerTest, AFullDiskKeepsTheOldCheckpoint) {
  Toy t(toy_options());
  t.step();
  t.save(path("c"));
  const std::string old = io::read_file(path("c"));
  t.step();
  signal(SIGXFSZ, SIG_IGN);
  rlimit limit{}, small{};
  getrlimit(RLIMIT_FSIZE, &limit);
  small = limit;
  small.rlim_cur = 100;
  setrlimit(RLIMIT_FSIZE, &small);
  ErrorCode code = ErrorCode::internal;
  try {
    t.save(path("c"));
  } catch (const Error& e) {
    code = e.code();
  }
  setrlimit(RLIMIT_FSIZE, &limit);
  EXPECT_EQ(code, ErrorCode::io);
  EXPECT_EQ(io::read_file(path("c")), old);
  EXPECT_EQ(std::distance(fs::directory_iterator(dir_), {}), 1) << "the temporary file was left behind";
}

// The command itself, killed without warning at random moments until it is done.
TEST_F(TrainerTest, KilledTrainingEndsWithTheSameCheckpoint) {
  for (int i = 0; i < 3; ++i) {
    io::Image8 picture{16, 16, std::vector<uint8_t>(16 * 16 * 4, static_cast<uint8_t>(60 * i + 40))};
    io::write_png(path("data/" + std::to_string(i) + ".png"), picture);
    io::atomic_write(path("data/" + std::to_string(i) + ".txt"), "picture " + std::to_string(i) + "\n");
  }
  const std::string program =
                        (fs::read_symlink("/proc/self/exe").parent_path().parent_path() / "vkflux").string(),
                    data = path("data");
  const auto train = [&](const std::string& out) {
    const std::string to = path(out);
    const pid_t pid = fork();
    if (pid != 0) return pid;
    // The parent's device is of no use after a fork: the child becomes a program of its own at once.
    const int null = open("/dev/null", O_WRONLY);
    dup2(null, STDOUT_FILENO);
    dup2(null, STDERR_FILENO);
    execl(program.c_str(), "vkflux", "train", "autoencoder", "--data", data.c_str(), "--out", to.c_str(),
          "--split", "all", "--size", "16", "--widths", "8", "16", "--groups", "4", "--latent-channels", "4",
          "--steps", "14", "--batch", "2", "--save-every", "1", nullptr);
    _exit(127);
  };
  int status = 0;
  waitpid(train("whole"), &status, 0);
  ASSERT_EQ(status, 0);
  std::mt19937 rng(3);
  int kills = 0;
  for (int attempt = 0; attempt < 40; ++attempt) {
    const pid_t pid = train("killed");
    // The first attempts are cut short, later ones get longer, so that the end is reached.
    usleep(static_cast<useconds_t>((150 + rng() % 350 + 60 * attempt) * 1000));
    const bool done = waitpid(pid, &status, WNOHANG) == pid;
    if (done) break;
    if (attempt < 12) {
      kill(pid, SIGKILL);
      ++kills;
    }
    waitpid(pid, &status, 0);
    if (status == 0) break;
  }
  ASSERT_EQ(status, 0);
  EXPECT_GT(kills, 0);
  EXPECT_EQ(io::read_file(path("whole/checkpoint.safetensors")),
            io::read_file(path("killed/checkpoint.safetensors")));
}

}  // namespace
}  // namespace vkflux::test
