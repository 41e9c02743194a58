// vkflux distill itself, on the shipped miniature: killed anywhere it ends with the same bits, and what can't
// be written or doesn't belong together is refused.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <random>

#include "app/cli/cli.h"
#include "model/io/file.h"
#include "model/io/json.h"

namespace vkflux::test {
namespace {

namespace fs = std::filesystem;

class DistillCommandTest : public ::testing::Test {
 protected:
  void SetUp() override {
    dir_ = fs::temp_directory_path() / ("vkflux_distill_" + std::to_string(getpid()));
    fs::create_directories(dir_);
  }
  void TearDown() override { fs::remove_all(dir_); }
  std::string path(const std::string& name) const { return (dir_ / name).string(); }
  std::string file(const std::string& name) const { return io::read_file(path(name)); }

  pid_t start(const std::string& out, const std::vector<std::string>& more) const {
    const std::string program =
        (fs::read_symlink("/proc/self/exe").parent_path().parent_path() / "vkflux").string();
    std::vector<std::string> words{
        program,    "distill",  "--model",  std::string(VKFLUX_SOURCE_DIR) + "/models/emoji",
        "--out",    path(out),  "--prompt", "red apple",
        "--prompt", "dog face", "--quiet"};
    const std::vector<std::pair<std::string, std::string>> defaults{{"--landmark-min", "2"},
                                                                    {"--feature-dim", "32"},
                                                                    {"--sampling-steps", "3"},
                                                                    {"--updates", "40"},
                                                                    {"--save-every", "1"}};
    for (const auto& [flag, value] : defaults) {
      if (std::find(more.begin(), more.end(), flag) == more.end()) words.insert(words.end(), {flag, value});
    }
    words.insert(words.end(), more.begin(), more.end());
    std::vector<char*> argv;
    for (std::string& w : words) argv.push_back(w.data());
    argv.push_back(nullptr);
    const pid_t pid = fork();
    if (pid != 0) return pid;
    // The parent's device is of no use after a fork: the child becomes a program of its own at once.
    const int null = open("/dev/null", O_WRONLY);
    const int errors = open(path("stderr").c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
    dup2(null, STDOUT_FILENO);
    dup2(errors, STDERR_FILENO);
    execv(program.c_str(), argv.data());
    _exit(127);
  }
  int run(const std::string& out, const std::vector<std::string>& more = {}) const {
    int status = 0;
    waitpid(start(out, more), &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }
  fs::path dir_;
};

TEST_F(DistillCommandTest, KilledAndStoppedRunsEndWithTheSameBits) {
  ASSERT_EQ(run("whole"), 0) << file("stderr");
  std::mt19937 rng(3);
  int kills = 0, status = -1;
  for (int attempt = 0; attempt < 30 && status != 0; ++attempt) {
    const pid_t pid = start("killed", {});
    usleep(static_cast<useconds_t>((300 + rng() % 500 + 80 * static_cast<unsigned>(attempt)) * 1000));
    if (waitpid(pid, &status, WNOHANG) == pid) continue;
    if (attempt < 6) {
      kill(pid, SIGKILL);
      ++kills;
    } else if (attempt < 8) {
      kill(pid, SIGINT);
    }
    waitpid(pid, &status, 0);
  }
  ASSERT_EQ(status, 0) << file("stderr");
  EXPECT_GT(kills, 0);
  EXPECT_EQ(file("whole/checkpoint.safetensors"), file("killed/checkpoint.safetensors"));
  EXPECT_EQ(file("whole/ttr.safetensors"), file("killed/ttr.safetensors"));
  EXPECT_EQ(file("whole/metrics.jsonl"), file("killed/metrics.jsonl"));

  ASSERT_EQ(run("stopped", {"--stop-after", "13"}), 0);
  EXPECT_FALSE(fs::exists(path("stopped/ttr.safetensors")));
  ASSERT_EQ(run("stopped"), 0);
  EXPECT_EQ(file("whole/checkpoint.safetensors"), file("stopped/checkpoint.safetensors"));
}

TEST_F(DistillCommandTest, WritesReportAndHeldOutDistances) {
  io::atomic_write(path("held.txt"), "cat face\n# a comment\ngreen apple\n");
  ASSERT_EQ(run("run", {"--holdout", path("held.txt"), "--holdout-runs", "2"}), 0) << file("stderr");
  const io::Json summary = io::parse_json(file("run/summary.json"), "summary");
  ASSERT_EQ(summary["layers"].size(), 4u);
  for (const io::Json& row : summary["layers"]) {
    EXPECT_GT(row["held_out_cosine_dist"].get<double>(), 0);
    EXPECT_LT(row["held_out_cosine_dist"].get<double>(), 1);
    EXPECT_GT(row["distilled_cosine_dist"].get<double>(), 0);
  }
  const std::string page = file("run/report.html");
  EXPECT_NE(page.find("<svg"), std::string::npos);
  EXPECT_EQ(page.find("http"), std::string::npos) << "the page must not need a network";
  EXPECT_NE(file("run/metrics.jsonl").find("flux2ttr/single:3/ema_cosine_dist"), std::string::npos);
}

TEST_F(DistillCommandTest, OtherShapesAndNonsenseAreRefused) {
  ASSERT_EQ(run("run", {"--updates", "8"}), 0) << file("stderr");
  const std::string before = file("run/checkpoint.safetensors");
  EXPECT_EQ(run("run", {"--feature-dim", "64"}), cli::kUsage);
  EXPECT_NE(file("stderr").find("feature_dim is 32 in the file and 64 in this run"), std::string::npos);
  EXPECT_EQ(file("run/checkpoint.safetensors"), before);
  EXPECT_EQ(run("new", {"--feature-dim", "33"}), cli::kUsage);
  EXPECT_EQ(run("new", {"--layer-start", "9"}), cli::kUsage);
  EXPECT_EQ(run("new", {"--size", "banana"}), cli::kUsage);
  io::atomic_write(path("run/checkpoint.safetensors"), before.substr(0, before.size() / 2));
  EXPECT_EQ(run("run"), cli::kBadFile);
}

}  // namespace
}  // namespace vkflux::test
