// vkflux train-controller and evaluate-controller as processes, on the shipped miniature with random
// students: stopped, killed and resumed runs end with the bits of one that never stopped.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>
#include <vector>

#include "app/cli/cli.h"
#include "model/attention/hkr/students.h"
#include "model/io/file.h"
#include "tests/harness/gpu.h"
#include "tests/harness/tiny_pipeline.h"

namespace vkflux::cli {
namespace {

namespace fs = std::filesystem;

struct Result {
  int code = -1;
  std::string out;
};

Result shell(const std::string& args) {
  FILE* pipe = popen((std::string("\"") + VKFLUX_PROGRAM + "\" " + args + " 2>&1").c_str(), "r");
  Result r;
  if (!pipe) return r;
  std::array<char, 4096> buffer{};
  for (size_t n; (n = fread(buffer.data(), 1, buffer.size(), pipe)) > 0;) r.out.append(buffer.data(), n);
  const int status = pclose(pipe);
  r.code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  return r;
}

class ControllerCli : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = fs::temp_directory_path() / ("vkflux_controller_cli_" + std::to_string(getpid()));
    fs::create_directories(folder_);
    Students s;
    s.model = test::student_layout(3, 64, 2, 4);
    s.config.head_dim = 64;
    s.config.feature_dim = 32;
    s.options.landmarks.min = 2;
    for (int i = 0; i < 3; ++i) {  // block 3 has no student
      auto student = std::make_shared<Student>();
      student->layer = std::make_shared<HkrLayer>(s.config, s.options);
      const std::vector<Param> params = parameters(*student->layer);
      allocate(params, test::device());
      initialise(params, hkr_init(s.config), static_cast<uint64_t>(i));
      student->readiness.ema_cosine_dist = 0.05;
      student->readiness.updates = 100;
      student->readiness.ready = true;
      s.layers["single_blocks." + std::to_string(i)] = student;
    }
    save_students(path("ttr"), s, io::FileDType::f32);
    for (auto& [name, student] : s.layers) {
      student->readiness.ready = false;
      student->readiness.ema_cosine_dist = 0.9;
    }
    save_students(path("raw"), s, io::FileDType::f32);
    io::atomic_write(path("prompts.txt"), "red apple\n# a remark\ndog face\nrocket\n");
  }
  static void TearDownTestSuite() { fs::remove_all(folder_); }
  static std::string path(const std::string& name) { return (folder_ / name).string(); }
  static std::string common(const std::string& ttr = "ttr") {
    return std::string("--model \"") + VKFLUX_SOURCE_DIR + "/models/emoji\" --ttr " + path(ttr) +
           " --prompts " + path("prompts.txt") + " --steps 2 --images 2 --seeds 1 ";
  }
  static std::string train(const std::string& out, const std::string& more = "") {
    return "train-controller " + common() + "--iterations 7 --plans 2 --save-every 2 --hidden-dim 32 --out " +
           path(out) + " " + more;
  }
  static fs::path folder_;
};
fs::path ControllerCli::folder_;

TEST_F(ControllerCli, StoppedAndResumedEqualsUninterrupted) {
  const Result whole = shell(train("whole", "--json"));
  ASSERT_EQ(whole.code, kOk) << whole.out;
  for (const char* file :
       {"controller.safetensors", "report.html", "metrics.jsonl", "checkpoint.safetensors"})
    EXPECT_TRUE(fs::exists(path("whole/") + file)) << file;
  ASSERT_EQ(shell(train("half", "--stop-after 3")).code, kOk);
  ASSERT_EQ(shell(train("half")).code, kOk);
  for (const char* file : {"controller.safetensors", "metrics.jsonl", "checkpoint.safetensors"})
    EXPECT_EQ(io::read_file(path("whole/") + file), io::read_file(path("half/") + file)) << file;
  const Result judged =
      shell("evaluate-controller " + common() + "--controller " + path("whole/controller.safetensors") +
            " --quality-speed 0.5 --shares 0 1 --repeats 1 --out " + path("figures.json"));
  ASSERT_EQ(judged.code, kOk) << judged.out;
  const auto j = nlohmann::json::parse(io::read_file(path("figures.json")));
  EXPECT_EQ(j.at("random")[0].at("student_share"), 0);
  EXPECT_NEAR(j.at("random")[0].at("cosine_distance").at("mean").get<double>(), 0, 1e-9);
  EXPECT_EQ(j.at("random")[1].at("student_share"), 1);
  EXPECT_GT(j.at("random")[1].at("loss").at("mean"), j.at("random")[0].at("loss").at("mean"));
  EXPECT_EQ(j.at("controller")[0].at("controller").at("runs"), 2);
}

// Signals at random moments until the work is done.
TEST_F(ControllerCli, InterruptedAndKilledTrainingEndsWithTheSameBits) {
  ASSERT_EQ(shell(train("calm")).code, kOk);
  std::mt19937 rng(5);
  int status = -1, cut = 0;
  for (int attempt = 0; attempt < 40; ++attempt) {
    const std::string command =
        std::string("exec \"") + VKFLUX_PROGRAM + "\" " + train("cut") + " 2>/dev/null";
    const pid_t pid = fork();
    if (pid == 0) {
      const int null = open("/dev/null", O_WRONLY);
      dup2(null, STDOUT_FILENO);
      execl("/bin/sh", "sh", "-c", command.c_str(), nullptr);
      _exit(127);
    }
    usleep(static_cast<useconds_t>((400 + rng() % 700 + 150 * static_cast<unsigned>(attempt)) * 1000));
    if (waitpid(pid, &status, WNOHANG) == pid) break;
    if (attempt < 10) {
      kill(pid, attempt % 2 ? SIGKILL : SIGINT);
      ++cut;
    }
    waitpid(pid, &status, 0);
    if (status == 0) break;
    if (WIFEXITED(status)) {
      // Before the command watches for signals, SIGINT ends it the hard way.
      EXPECT_EQ(WEXITSTATUS(status), kInterrupted);
    }
  }
  ASSERT_EQ(status, 0);
  EXPECT_GT(cut, 0);
  for (const char* file : {"controller.safetensors", "metrics.jsonl", "checkpoint.safetensors"})
    EXPECT_EQ(io::read_file(path("calm/") + file), io::read_file(path("cut/") + file)) << file;
}

TEST_F(ControllerCli, WhatCannotBeIsRefusedAtTheStart) {
  Result r = shell("train-controller " + common("raw") + "--out " + path("none"));
  EXPECT_EQ(r.code, kUsage);
  EXPECT_NE(r.out.find("ready"), std::string::npos) << r.out;
  r = shell(train("none", "--lpips-weight 0.5"));
  EXPECT_EQ(r.code, kLimit);
  EXPECT_NE(r.out.find("lpips"), std::string::npos) << r.out;
  EXPECT_EQ(shell(train("none", "--rmse-weight 0 --cosine-weight 0")).code, kUsage);
  EXPECT_EQ(shell(train("none", "--target-ttr-ratio 1.5")).code, kUsage);
  EXPECT_FALSE(fs::exists(path("none")));
  // Another network than the checkpoint's.
  ASSERT_EQ(shell(train("small", "--stop-after 1")).code, kOk);
  r = shell("train-controller " + common() + "--hidden-dim 48 --out " + path("small"));
  EXPECT_EQ(r.code, kUsage);
  EXPECT_NE(r.out.find("32"), std::string::npos) << r.out;
  EXPECT_NE(r.out.find("48"), std::string::npos) << r.out;
}

}  // namespace
}  // namespace vkflux::cli
