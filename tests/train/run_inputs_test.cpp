// What a run knows of itself: the inputs in its checkpoint, who may write to its folder, a clean start.
#include "train/run_inputs.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>

#include "model/io/file.h"
#include "model/io/png.h"
#include "tests/harness/expect_error.h"
#include "tests/harness/temp_folder.h"
#include "train/run_folder.h"
#include "vk/error.h"

namespace vkflux::test {
namespace {

namespace fs = std::filesystem;

class RunInputsTest : public ::testing::Test {
 protected:
  /// A checkpoint with these inputs and nothing else.
  std::string checkpoint(const RunInputs& inputs) const {
    std::map<std::string, std::string> metadata;
    inputs.write(metadata);
    return checkpoint(metadata);
  }
  std::string checkpoint(const std::map<std::string, std::string>& metadata) const {
    const std::string path = folder_.file("checkpoint");
    io::write_safetensors(path, {io::tensor_data("x", {1}, std::vector<float>{1})}, metadata);
    return path;
  }
  /// What is kept under a name.
  std::string entry(const RunInputs& inputs, const std::string& name) const {
    std::map<std::string, std::string> metadata;
    inputs.write(metadata);
    const io::Json all = io::parse_json(metadata.at("inputs"), "inputs");
    return all.contains(name) ? all[name].dump() : "absent";
  }
  std::string files(const std::vector<std::string>& paths) const {
    RunInputs inputs;
    inputs.set_files("files", paths);
    return entry(inputs, "files");
  }
  void write(const std::string& name, std::string_view text) const {
    io::atomic_write(folder_.file(name), text);
  }

  TempFolder folder_;
};

TEST_F(RunInputsTest, DifferencesAreRefusedWithBothValuesOrAccepted) {
  RunInputs before;
  before.set("seed", uint64_t{18446744073709551615u});
  before.set("lr", 0.2f);
  before.set("gone", true);
  before.set_texts("prompts", {"red", "blue"});
  const io::SafetensorsFile file(checkpoint(before));
  EXPECT_NO_THROW(before.check(file));
  EXPECT_EQ(entry(before, "lr"), "0.2") << "as people write it";

  RunInputs now;
  now.set("lr", 0.2f);
  now.set("new", std::vector<int>{1, 2});
  now.set("seed", uint64_t{1});
  now.set_texts("prompts", {"red", "bl", "ue"});
  const auto check = [&] { now.check(file); };
  expect_error(
      ErrorCode::invalid_argument,
      {"seed is 18446744073709551615 in the file and 1 in this run", "gone is true in the file and absent",
       "new is absent in the file and [1,2] in this run", "prompts is 2 texts, checksum ",
       "in the file and 3 texts, checksum ", "--accept-changed-inputs", "--fresh"},
      check);
  now.accept_changes({"gone", "new", "prompts"});
  expect_error(ErrorCode::invalid_argument, {"settings: seed is "}, check);
  now.accept_changes();
  EXPECT_EQ(now.check(file), (std::vector<std::string>{"seed", "gone", "prompts", "new"}));

  // The next checkpoint is that of the accepted inputs, and says what was accepted.
  const io::SafetensorsFile next(checkpoint(now));
  RunInputs same;
  same.set("lr", 0.2f);
  same.set("new", std::vector<int>{1, 2});
  same.set("seed", 1);
  same.set_texts("prompts", {"red", "bl", "ue"});
  EXPECT_TRUE(same.check(next).empty());
  std::map<std::string, std::string> metadata;
  same.write(metadata);
  const io::Json accepted = io::parse_json(metadata.at("accepted_changes"), "metadata");
  ASSERT_EQ(accepted.size(), 4u);
  EXPECT_EQ(accepted[0], (io::Json{{"name", "seed"}, {"from", 18446744073709551615u}, {"to", 1}}));
}

TEST_F(RunInputsTest, OldAndDamagedCheckpoints) {
  RunInputs inputs;
  inputs.set("seed", 1);
  EXPECT_TRUE(inputs.check(io::SafetensorsFile(checkpoint(std::map<std::string, std::string>{{"step", "1"}})))
                  .empty());
  for (const char* bad : {"{", "[]", "1", "null"}) {
    const io::SafetensorsFile file(checkpoint(std::map<std::string, std::string>{{"inputs", bad}}));
    expect_error(ErrorCode::format, {"inputs"}, [&] { inputs.check(file); });
  }
  // A message stays readable whatever a file says.
  io::Json many = io::Json::object();
  for (int i = 0; i < 1000; ++i) many[std::to_string(i) + "\x1b[31m"] = std::string(1000, 'x');
  const io::SafetensorsFile hostile(checkpoint(std::map<std::string, std::string>{{"inputs", many.dump()}}));
  try {
    inputs.check(hostile);
    FAIL();
  } catch (const Error& e) {
    const std::string text = e.what();
    EXPECT_LT(text.size(), 8192u);
    EXPECT_EQ(text.find('\x1b'), std::string::npos);
    EXPECT_NE(text.find("and 985 more"), std::string::npos) << text;
  }
}

TEST_F(RunInputsTest, FilesAreKnownByTheirContentsNotByTheirPlace) {
  write("vae/config.json", "{}");
  write("vae/x.safetensors", "abc");
  const std::string first = files({folder_.file("vae")});
  EXPECT_NE(first.find("5 bytes in 2 files, checksum "), std::string::npos) << first;
  fs::rename(folder_.file("vae"), folder_.file("moved"));
  fs::create_directory_symlink(folder_.file("moved"), folder_.file("link"));
  EXPECT_EQ(files({folder_.file("moved") + "/"}), first);
  EXPECT_EQ(files({folder_.file("link")}), first);
  EXPECT_EQ(files({folder_.file("vae")}), "absent");
  write("moved/README.md", "no input");
  write("moved/samples/a.json", "no input");
  EXPECT_EQ(files({folder_.file("moved")}), first);
  write("moved/x.safetensors", "abd");
  EXPECT_NE(files({folder_.file("moved")}), first);
  write("moved/x.safetensors", "abc");
  EXPECT_EQ(files({folder_.file("moved")}), first);
  fs::rename(folder_.file("moved/x.safetensors"), folder_.file("moved/y.safetensors"));
  EXPECT_NE(files({folder_.file("moved")}), first);
}

TEST_F(RunInputsTest, OfAModelTheIndexAndThePartsThatItNames) {
  write("m/model_index.json", R"({"_class_name": "X", "vae": ["a", "b"], "absent": ["a", "b"], "more": {}})");
  write("m/vae/config.json", "{}");
  write("m/runs/params.json", "{}");
  write("m/ttr.safetensors", "beside");
  const std::string first = files({folder_.file("m")});
  write("m/ttr.safetensors", "another");
  write("m/runs/params.json", "{1}");
  EXPECT_EQ(files({folder_.file("m")}), first);
  EXPECT_EQ(files({folder_.file("m/ttr.safetensors")}).find("7 bytes in 1 files"), 1u);
  write("m/vae/config.json", "{ }");
  EXPECT_NE(files({folder_.file("m")}), first);
}

TEST_F(RunInputsTest, PicturesAndCaptionsOfTheItemsThatAreUsed) {
  const auto picture = [&](const std::string& name, uint8_t grey) {
    io::write_png(folder_.file(name + ".png"), {2, 2, std::vector<uint8_t>(16, grey)});
    write(name + ".txt", name + "\n");
  };
  for (const char* name : {"data/a", "data/b", "data/c"}) picture(name, 10);
  const auto inputs = [&](const std::string& at) {
    const Dataset data = Dataset::open(folder_.file(at));
    RunInputs out;
    out.set_items(data, {0, 1});
    return std::pair{entry(out, "pictures"), entry(out, "captions")};
  };
  const auto first = inputs("data");
  EXPECT_NE(first.first.find(" 2 pictures, checksum "), std::string::npos) << first.first;
  picture("data/c", 11);
  EXPECT_EQ(inputs("data"), first) << "not one of them";
  fs::rename(folder_.file("data"), folder_.file("moved"));
  EXPECT_EQ(inputs("moved"), first);
  write("moved/b.txt", "bee\n");
  EXPECT_EQ(inputs("moved").first, first.first);
  EXPECT_NE(inputs("moved").second, first.second);
  picture("moved/a", 12);
  EXPECT_NE(inputs("moved").first, first.first);
}

TEST_F(RunInputsTest, OneProcessHoldsAFolder) {
  const RunFolder folder{folder_.file("runs/x")};
  int ready[2];
  ASSERT_EQ(pipe(ready), 0);
  const pid_t child = fork();
  if (child == 0) {
    const RunLock lock(folder);
    [[maybe_unused]] const ssize_t said = ::write(ready[1], "x", 1);
    for (;;) pause();
  }
  char c = 0;
  ASSERT_EQ(::read(ready[0], &c, 1), 1);
  expect_error(ErrorCode::io, {"runs/x", "process " + std::to_string(child), "--out"},
               [&] { RunLock second(folder); });
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  {
    const RunLock lock(folder);
    expect_error(ErrorCode::io, {"process " + std::to_string(getpid())}, [&] { RunLock second(folder); });
    io::atomic_write(folder.file("kept"), std::string_view("x"));
  }
  EXPECT_EQ(std::distance(fs::directory_iterator(folder.path), {}), 1) << "no lock stays behind";
  { const RunLock lock({folder_.file("a/b/c/")}); }
  EXPECT_FALSE(fs::exists(folder_.file("a"))) << "nobody wrote there";
  write("file", "");
  expect_error(ErrorCode::io, {"file"}, [&] { RunLock lock({folder_.file("file")}); });
  expect_error(ErrorCode::io, {"file/x"}, [&] { RunLock lock({folder_.file("file/x")}); });
}

TEST_F(RunInputsTest, ACleanStartRemovesWhatRunsWriteAndNothingElse) {
  const std::vector<std::string> ours{"checkpoint.safetensors",
                                      "metrics.jsonl",
                                      "params.json",
                                      "events/events.out.tfevents.0000000000.vkflux",
                                      "events/events.out.tfevents.0000000120.vkflux",
                                      "samples/final.png",
                                      "samples/000100.png",
                                      "model/vae/config.json"},
      foreign{"checkpoint.safetensors.backup",
              "notes.txt",
              "events/events.out.tfevents.0000000120.host",
              "samples/mine.png",
              "samples/000100.png.old",
              "model/vae/other.json",
              "deeper/samples/final.png",
              "only/mine/x"};
  const RunFolder folder{folder_.path()};
  for (const auto& list : {ours, foreign}) {
    for (const std::string& name : list) write(name, name);
  }
  write("input/config.json", "{}");
  fs::create_symlink("notes.txt", folder_.file("samples/000200.png"));
  fs::create_directory_symlink("only", folder_.file("linked"));
  folder.clear({"samples/[0-9][0-9][0-9][0-9][0-9][0-9].png", "samples/final.png", "model/*/config.json",
                "input/config.json", "linked/mine/x", "absent/*"},
               [](const std::string& path) { return path.find("input") != std::string::npos; });
  for (const std::string& name : ours) EXPECT_FALSE(fs::exists(folder_.file(name))) << name;
  for (const std::string& name : foreign) EXPECT_EQ(io::read_file(folder_.file(name)), name);
  EXPECT_TRUE(fs::exists(folder_.file("input/config.json")));
  EXPECT_FALSE(fs::is_symlink(folder_.file("samples/000200.png")));
  fs::remove(folder_.file("events/events.out.tfevents.0000000120.host"));
  write("events/events.out.tfevents.0000000007.vkflux", "x");
  folder.clear_events();
  EXPECT_FALSE(fs::exists(folder_.file("events"))) << "an empty folder goes, too";
}

}  // namespace
}  // namespace vkflux::test
