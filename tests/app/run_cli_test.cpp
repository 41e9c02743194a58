// Runs as processes: what they were made from is noticed, one process writes to a folder, signals keep the
// checkpoint, and nobody who stops listening ends the work.
#include <fcntl.h>
#include <signal.h>

#include <chrono>
#include <sstream>
#include <thread>

#include "app/cli/cli.h"
#include "model/io/file.h"
#include "model/io/json.h"
#include "model/io/png.h"
#include "model/io/safetensors.h"
#include "tests/app/cli_fixture.h"

namespace vkflux::cli {
namespace {

namespace fs = std::filesystem;
using test::vkflux;

class RunCli : public test::Cli {
 protected:
  void SetUp() override {
    Cli::SetUp();
    for (int i = 0; i < 3; ++i) picture("data", i, 40 + 60 * i);
  }
  void picture(const std::string& data, int i, int grey) const {
    std::vector<uint8_t> rgba(16 * 16 * 4, static_cast<uint8_t>(grey));
    for (size_t k = 0; k < rgba.size(); k += 12) rgba[k] = 0;
    const std::string name = path(data + "/" + std::to_string(i));
    io::write_png(name + ".png", {16, 16, rgba});
    io::atomic_write(name + ".txt", "picture " + std::to_string(i) + "\n");
  }
  std::string train(const std::string& out, const std::string& more = "",
                    const std::string& data = "data") const {
    return "train autoencoder --data " + path(data) + " --out " + path(out) +
           " --split all --size 16 --widths 8 16 --groups 4 --latent-channels 4 --batch 2 --log-every 1 " +
           more;
  }
  std::string distill(const std::string& out, const std::string& more = "") const {
    return std::string("distill --model \"") + VKFLUX_SOURCE_DIR + "/models/emoji\" --out " + path(out) +
           " --prompt \"red apple\" --landmark-min 2 --feature-dim 32 --sampling-steps 2 " + more;
  }
  test::Result shell(const std::string& args) const { return vkflux(args, "2>&1"); }

  /// The program in the background, its messages in the file "messages".
  pid_t start(const std::string& args) const {
    const std::string command =
        std::string("exec \"") + VKFLUX_PROGRAM + "\" " + args + " >/dev/null 2>" + path("messages");
    const pid_t pid = fork();
    if (pid != 0) return pid;
    execl("/bin/sh", "sh", "-c", command.c_str(), nullptr);
    _exit(127);
  }
  /// Waits for something, a minute at most.
  template <class F>
  static bool wait_for(const F& there) {
    for (int i = 0; i < 6000; ++i) {
      if (there()) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return false;
  }
  /// Whether it catches SIGTERM by now; before, a signal ends it as any process.
  static bool watches(pid_t pid) {
    std::ifstream status("/proc/" + std::to_string(pid) + "/status");
    for (std::string line; std::getline(status, line);) {
      if (line.rfind("SigCgt:", 0) == 0) return std::stoull(line.substr(7), nullptr, 16) >> (SIGTERM - 1) & 1;
    }
    return false;
  }
  bool has_rows(const std::string& out) const {
    std::error_code none;
    return fs::file_size(path(out + "/metrics.jsonl"), none) > 0 && !none;
  }
  static int end_of(pid_t pid) {
    int status = -1;
    waitpid(pid, &status, 0);
    return status;
  }
  std::string messages() const { return io::read_file(path("messages")); }
};

TEST_F(RunCli, ARunKnowsItsPicturesAndSettings) {
  ASSERT_EQ(shell(train("run", "--steps 20 --stop-after 2")).code, kOk);
  fs::rename(path("data"), path("moved"));
  EXPECT_EQ(shell(train("run", "--steps 20 --stop-after 3", "moved")).code, kOk)
      << "where it lies is no change";
  const std::string before = io::read_file(path("run/checkpoint.safetensors"));
  picture("moved", 1, 101);
  test::Result r = shell(train("run", "--steps 21 --lr 0.5 --seed 7 --stop-after 4", "moved"));
  EXPECT_EQ(r.code, kUsage) << r.out;
  for (const char* part :
       {"steps is 20 in the file and 21 in this run", "lr is 0.002 in the file and 0.5",
        "seed is 0 in the file and 7", "3 pictures, checksum ", "--accept-changed-inputs"}) {
    EXPECT_NE(r.out.find(part), std::string::npos) << part << " in " << r.out;
  }
  EXPECT_EQ(r.out.find("captions"), std::string::npos) << r.out;
  EXPECT_EQ(io::read_file(path("run/checkpoint.safetensors")), before);
  const std::string changed = train("run", "--steps 21 --lr 0.5 --seed 7 --stop-after 4", "moved");
  r = shell(changed + " --accept-changed-inputs");
  EXPECT_EQ(r.code, kOk) << r.out;
  EXPECT_NE(r.out.find("seed was 0 and is 7 from now on"), std::string::npos) << r.out;
  EXPECT_EQ(io::read_json(path("run/params.json"))["accept_changed_inputs"], true);
  const io::SafetensorsFile kept(path("run/checkpoint.safetensors"));
  EXPECT_EQ(io::parse_json(kept.metadata().at("accepted_changes"), "changes").size(), 4u);
  EXPECT_EQ(shell(changed).code, kOk) << "it is that run now";
}

TEST_F(RunCli, ADistillationKnowsItsModelAndPrompts) {
  test::Result r = shell(distill("run", "--updates 40 --stop-after 1"));
  ASSERT_EQ(r.code, kOk) << r.out;
  r = shell(distill("run", "--updates 50 --stop-after 4 --quiet"));
  EXPECT_EQ(r.code, kOk) << r.out;
  EXPECT_EQ(r.out.find("is used instead of"), std::string::npos) << r.out;
  r = shell(distill("run", "--prompt dog --seed 1 --gamma 3 --weights bf16"));
  EXPECT_EQ(r.code, kUsage);
  for (const char* part :
       {"prompts is 1 texts, checksum ", "and 2 texts, checksum ", "seed is 0 in the file and 1",
        "gamma is 2.0 in the file and 3.0", "weights is f32 in the file and bf16"}) {
    EXPECT_NE(r.out.find(part), std::string::npos) << part << " in " << r.out;
  }
  r = shell(
      distill("run", "--updates 50 --stop-after 6 --prompt dog --seed 1 --gamma 3 --accept-changed-inputs"));
  EXPECT_EQ(r.code, kOk) << r.out;
  EXPECT_NE(r.out.find("gamma was 2.0 and is 3.0 from now on"), std::string::npos) << r.out;
  EXPECT_EQ(r.out.find("is used instead of"), std::string::npos) << r.out;
  EXPECT_EQ(shell(distill("run", "--updates 50 --stop-after 8 --prompt dog --seed 1 --gamma 3")).code, kOk);
}

TEST_F(RunCli, OneProcessWritesToAFolder) {
  const pid_t first = start(train("run", "--steps 1000000"));
  ASSERT_TRUE(wait_for([&] { return has_rows("run"); })) << messages();
  const test::Result second = shell(train("run", "--steps 4"));
  EXPECT_EQ(second.code, kBadFile);
  EXPECT_NE(second.out.find("process " + std::to_string(first)), std::string::npos) << second.out;
  kill(first, SIGKILL);
  end_of(first);
  EXPECT_EQ(shell(train("run", "--steps 4")).code, kOk);
  EXPECT_FALSE(fs::exists(path("run/run.lock")));
}

TEST_F(RunCli, AFreshStartLeavesNothingOfTheEarlierRun) {
  ASSERT_EQ(shell(train("run", "--steps 20 --save-every 1 --stop-after 3")).code, kOk);
  ASSERT_EQ(shell(train("run", "--steps 20 --save-every 1 --stop-after 5")).code, kOk);
  const auto events = [&] { return std::distance(fs::directory_iterator(path("run/events")), {}); };
  EXPECT_EQ(events(), 2);
  file("run/notes.txt", "mine");
  EXPECT_EQ(shell(train("run", "--steps 2 --fresh")).code, kOk);
  EXPECT_EQ(events(), 1);
  EXPECT_EQ(io::read_file(path("run/notes.txt")), "mine");
  // A run without its checkpoint starts anew, so its events do.
  fs::rename(path("run/events/events.out.tfevents.0000000000.vkflux"),
             path("run/events/events.out.tfevents.0000000009.vkflux"));
  fs::remove(path("run/checkpoint.safetensors"));
  EXPECT_EQ(shell(train("run", "--steps 2")).code, kOk);
  EXPECT_EQ(events(), 1);
}

TEST_F(RunCli, EverySignalKeepsTheCheckpoint) {
  for (const int signal : {SIGHUP, SIGTERM, SIGINT}) {
    const std::string out = "run" + std::to_string(signal);
    const pid_t pid = start(train(out, "--steps 1000000 --save-every 1000000"));
    ASSERT_TRUE(wait_for([&] { return has_rows(out); })) << messages();
    kill(pid, signal);
    kill(pid, signal);  // as `timeout` and terminals do
    if (signal != SIGINT) kill(pid, SIGHUP);
    const int status = end_of(pid);
    ASSERT_TRUE(WIFEXITED(status)) << signal;
    EXPECT_EQ(WEXITSTATUS(status), kInterrupted) << messages();
    EXPECT_TRUE(fs::exists(path(out + "/checkpoint.safetensors")));
    EXPECT_NE(messages().find("the same command resumes"), std::string::npos) << messages();
  }
}

TEST_F(RunCli, ASecondCtrlCEndsAtOnce) {
  const pid_t pid = start(train("run", "--steps 9 --accumulate 60000"));  // steps of minutes
  ASSERT_TRUE(wait_for([&] { return fs::exists(path("run/params.json")); })) << messages();
  kill(pid, SIGINT);
  std::this_thread::sleep_for(std::chrono::milliseconds(250));
  int status = 0;
  EXPECT_EQ(waitpid(pid, &status, WNOHANG), 0) << "the first one lets the step end";
  kill(pid, SIGINT);
  status = end_of(pid);
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGINT) << status;
}

TEST_F(RunCli, LongWorkOutsideOfTrainingEndsToo) {
  const std::string model = std::string(" --model \"") + VKFLUX_SOURCE_DIR + "/models/emoji\" ",
                    students =
                        std::string(" --ttr \"") + VKFLUX_SOURCE_DIR + "/models/emoji/ttr.safetensors\" ";
  file("prompts.txt", "red apple\n");
  for (int i = 3; i < 40; ++i) picture("data", i, 2 * i);
  const std::string training =
      distill("held", "--updates 2 --holdout " + path("prompts.txt") + " --holdout-runs 60000");
  const std::vector<std::string> all{
      training,
      "eval --data " + path("data") + model +
          "--split all --candidates all --vae-split all --unseen \"\" --steps 10000",
      "report" + model + students + "--prompt a --steps 10000 --out " + path("report.html"),
      "sample" + model + "--prompt a --steps 10000 --out " + path("sweep") + " --sweep seed=1,2",
      "bench --suite ops --filter linear --seconds 1000"};
  for (const std::string& work : all) {
    const pid_t pid = start(work);
    ASSERT_TRUE(wait_for([&] {
      return watches(pid) && (work != training || fs::exists(path("held/checkpoint.safetensors")));
    })) << work
        << messages();
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    kill(pid, SIGTERM);
    const int status = end_of(pid);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == kInterrupted) << work << messages();
    EXPECT_NE(messages().find("error: "), std::string::npos) << work << messages();
    EXPECT_EQ(messages().find("internal"), std::string::npos) << work << messages();
  }
}

TEST_F(RunCli, AClosedPipeEndsNoWork) {
  const std::string code = path("code");
  const auto run = [&](const std::string& args) {
    const std::string line =
        std::string("(\"") + VKFLUX_PROGRAM + "\" " + args + "; echo $? >" + code + ") 2>&1 | true";
    EXPECT_EQ(std::system(line.c_str()), 0);
    return std::stoi(io::read_file(code));
  };
  EXPECT_EQ(run(train("run", "--steps 3 --json")), kOk);
  EXPECT_TRUE(fs::exists(path("run/vae/config.json")));
  EXPECT_EQ(run("dataset list " + path("data") + " --captions"), kOk);
  EXPECT_EQ(run("--help"), kOk);
}

TEST_F(RunCli, ResultsThatCannotBeWrittenAreAnError) {
  for (const auto& [args, to] : {std::pair{"devices --json", ">/dev/full"},
                                 {"devices", ">&-"},
                                 {"--help", ">/dev/full"},
                                 {"--version", ">&-"},
                                 {"inspect models/emoji", ">/dev/full"}}) {
    const test::Result r = vkflux(args, std::string("2>&1 ") + to);
    EXPECT_EQ(r.code, kBadFile) << args << to;
    EXPECT_NE(r.out.find("stdout: can't write the results: "), std::string::npos) << args << to << r.out;
  }
  EXPECT_EQ(vkflux("devices --json", "2>/dev/full").code, kOk) << "messages may be lost";
  EXPECT_EQ(vkflux("devices --json", "2>&-").code, kOk);
  // A file opened in the place of a closed stream would get the results or the messages.
  EXPECT_EQ(vkflux(train("closed", "--steps 2"), ">&- 2>&- <&-").code, kBadFile);
  EXPECT_EQ(io::read_file(path("closed/metrics.jsonl")).front(), '{');
  EXPECT_NO_THROW(io::SafetensorsFile{path("closed/checkpoint.safetensors")});
}

TEST(Sources, PrintThroughOnePlace) {
  for (const auto& entry : fs::recursive_directory_iterator(std::string(VKFLUX_SOURCE_DIR) + "/app")) {
    if (!entry.is_regular_file()) continue;
    const std::string text = io::read_file(entry.path().string());
    for (const char* other : {"fmt::print(", "std::printf(", "std::fprintf(", "std::fputs(", "std::puts(",
                              "std::fputc(", "std::signal("}) {
      if (entry.path().stem() == "process") continue;
      EXPECT_EQ(text.find(other), std::string::npos) << entry.path() << " has " << other;
    }
  }
}

TEST_F(RunCli, WhatIsNotMeasuredHasNoWeightAmongTheParameters) {
  file("prompts.txt", "red apple\n");
  const test::Result r =
      shell(std::string("train-controller --model \"") + VKFLUX_SOURCE_DIR + "/models/emoji\" --ttr \"" +
            VKFLUX_SOURCE_DIR + "/models/emoji/ttr.safetensors\" --prompts " + path("prompts.txt") +
            " --steps 1 --images 1 --seeds 1 --iterations 1 --plans 2 --hidden-dim 16 --out " + path("run"));
  ASSERT_EQ(r.code, kOk) << r.out;
  for (const char* name : {"params.json", "metrics.jsonl", "report.html"}) {
    const std::string text = io::read_file(path(std::string("run/") + name));
    for (const char* absent : {"lpips", "dreamsim", "hps", "biqa"}) {
      EXPECT_EQ(text.find(absent), std::string::npos) << absent << " in " << name;
    }
  }
  EXPECT_EQ(io::read_json(path("run/params.json"))["rmse_weight"], 1.0);
}

}  // namespace
}  // namespace vkflux::cli
