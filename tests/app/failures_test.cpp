// Training runs whose disk fills up or whose device fails: the error is typed, the last checkpoint is intact,
// and continuing ends with the bits of a run that nothing happened to.
#include <map>
#include <sstream>

#include "app/cli/cli.h"
#include "model/io/file.h"
#include "model/io/safetensors.h"
#include "tests/app/cli_fixture.h"
#include "tests/harness/temp_folder.h"
#include "tests/harness/tiny_pipeline.h"

namespace vkflux::cli {
namespace {

namespace fs = std::filesystem;

struct Command {
  std::string name, arguments;
  std::vector<std::string> results;  // files in the run folder
};

/// What the commands read.
struct Inputs {
  test::TempFolder folder;
  std::string students = folder.file("ttr"), prompts = folder.file("prompts.txt");
  Inputs() {
    save_students(students, test::random_students(test::tiny_student_model(), true), io::FileDType::f32);
    io::atomic_write(prompts, std::string_view("cat\ndog\n"));
  }
};

const std::vector<Command>& commands() {
  static const Inputs inputs;
  static const std::vector<Command> list{
      {"distill",
       "distill --prompts " + inputs.prompts +
           " --updates 120 --save-every 3 --feature-dim 32 "
           "--landmark-min 1 --sampling-steps 3 --quiet",
       {"checkpoint.safetensors", "ttr.safetensors", "metrics.jsonl"}},
      {"train_controller",
       "train-controller --ttr " + inputs.students + " --prompts " + inputs.prompts +
           " --steps 2 --images 2 --seeds 1 --iterations 9 --plans 2 "
           "--save-every 2 --hidden-dim 16",
       {"checkpoint.safetensors", "controller.safetensors", "metrics.jsonl"}}};
  return list;
}

class Failures : public ::testing::TestWithParam<size_t> {
 protected:
  const Command& command_ = commands()[GetParam()];

  void SetUp() override { ASSERT_EQ(run("whole"), kOk) << output(); }
  /// before: what the shell shall do or set first.
  int run(const std::string& out, const std::string& before = "", const std::string& more = "") {
    const std::string line = before + " \"" VKFLUX_PROGRAM "\" " + command_.arguments + " " + more +
                             " --model \"" + test::tiny_pipeline() + "\" --out " + folder_.file(out) + " >" +
                             folder_.file("output") + " 2>&1";
    const int status = std::system(line.c_str());
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }
  static std::string fault(const std::string& what, int at) {
    return "VKFLUX_VALIDATE=0 VK_LAYER_PATH=\"" VKFLUX_FAULT_LAYER
           "\" VK_INSTANCE_LAYERS=VK_LAYER_VKFLUX_fault VKFLUX_FAULT_" +
           what + "=" + std::to_string(at);
  }
  std::string output() const { return io::read_file(folder_.file("output")); }
  std::string checkpoint(const std::string& out) const {
    return folder_.file(out + "/checkpoint.safetensors");
  }
  std::string bytes(const std::string& path) const { return fs::exists(path) ? io::read_file(path) : ""; }
  void expect_no_temporary_files(const std::string& out) const {
    EXPECT_EQ(test::temporary_files(folder_.file(out)), std::vector<std::string>());
  }
  void expect_equal_results(const std::string& a, const std::string& b) const {
    for (const std::string& file : command_.results) {
      const std::string first = bytes(folder_.file(a + "/" + file));
      EXPECT_TRUE(!first.empty() && first == bytes(folder_.file(b + "/" + file))) << file;
    }
  }

  test::TempFolder folder_;
};

TEST_P(Failures, ALostDeviceKeepsTheCheckpoint) {
  int lost = 0, resumed = 0, code = -1;
  for (int at = 5; at < 4000; at = at * 5 / 3) {
    const bool had = fs::exists(checkpoint("lost"));
    code = run("lost", fault("LOST_AT", at));
    if (code == kOk) break;
    ASSERT_EQ(code, kDeviceLost) << output();
    EXPECT_NE(output().find("lost"), std::string::npos) << output();
    ++lost;
    resumed += had;
    expect_no_temporary_files("lost");
    if (fs::exists(checkpoint("lost"))) {
      EXPECT_NO_THROW(io::SafetensorsFile{checkpoint("lost")});
    }
  }
  EXPECT_EQ(code, kOk) << output();
  EXPECT_GE(lost, 2);
  EXPECT_GE(resumed, 1);
  expect_equal_results("whole", "lost");
}

TEST_P(Failures, AFullDiskKeepsTheCheckpoint) {
  ASSERT_EQ(run("full", "", "--stop-after 4"), kOk) << output();
  const std::string before = bytes(checkpoint("full"));
  ASSERT_FALSE(before.empty());
  // Files of at most half a checkpoint, in the 512-byte units of POSIX.
  const std::string limit = "trap '' XFSZ; ulimit -f " + std::to_string(before.size() / 1024) + ";";
  EXPECT_EQ(run("full", limit), kBadFile) << output();
  EXPECT_NE(output().find("checkpoint.safetensors"), std::string::npos) << output();
  EXPECT_TRUE(bytes(checkpoint("full")) == before);
  expect_no_temporary_files("full");
  EXPECT_EQ(run("full"), kOk) << output();
  expect_equal_results("whole", "full");
}

TEST_P(Failures, ExhaustedMemoryKeepsTheCheckpoint) {
  int failed = 0, code = -1;
  for (int at = 1; at < 64; ++at) {
    code = run("less", fault("MEMORY_AT", at));
    if (code == kOk) break;
    ASSERT_EQ(code, kLimit) << output();
    ++failed;
    expect_no_temporary_files("less");
    if (fs::exists(checkpoint("less"))) {
      EXPECT_NO_THROW(io::SafetensorsFile{checkpoint("less")});
    }
  }
  EXPECT_EQ(code, kOk) << output();
  EXPECT_GE(failed, 1);
  expect_equal_results("whole", "less");
}

INSTANTIATE_TEST_SUITE_P(Commands, Failures, ::testing::Values(0u, 1u),
                         [](const auto& info) { return commands()[info.param].name; });

}  // namespace
}  // namespace vkflux::cli
