// Nothing that is read is written over, no two results meet, and what can't be written is known before the
// work.
#include "app/outputs.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>

#include "app/cli/cli.h"
#include "model/io/file.h"
#include "tests/app/cli_fixture.h"
#include "tests/harness/expect_error.h"
#include "tests/harness/temp_folder.h"
#include "tests/harness/tiny_pipeline.h"

namespace vkflux {
namespace {

namespace fs = std::filesystem;
using test::expect_error;
using test::TempFolder;

/// One input and one output.
void use(const std::string& input, const std::string& output) {
  FileUse files;
  files.reads("--in", input);
  files.writes("--out", output);
  files.check();
}

TEST(FileUse, AnInputByAnyName) {
  const TempFolder folder;
  const std::string x = folder.file("x");
  io::atomic_write(x, "data");
  fs::create_symlink("x", folder.file("link"));
  fs::create_symlink("link", folder.file("second"));
  fs::create_hard_link(x, folder.file("hard"));
  fs::create_directory(folder.file("sub"));
  fs::create_directory_symlink(folder.path(), folder.file("sub/up"));
  for (const char* name :
       {"x", "./x", "sub/../x", "link", "second", "hard", "sub/up/x", "sub/up/link", ".//x"}) {
    expect_error(ErrorCode::invalid_argument, {"--out", name, "--in", x}, [&] { use(x, folder.file(name)); });
    expect_error(ErrorCode::invalid_argument, {"--out", "--in"}, [&] { use(folder.file(name), x); });
  }
  use(x, folder.file("y"));
  use(folder.file("absent"), x);
  use("", x);
  use(x, "");
  EXPECT_EQ(io::read_file(x), "data");
  EXPECT_EQ(io::folder_entries(folder.path()).size(), 5u);  // nothing was left behind
}

TEST(FileUse, AFileOfAFolderThatIsRead) {
  const TempFolder folder;
  io::atomic_write(folder.file("model/vae/config.json"), "{}");
  expect_error(ErrorCode::invalid_argument, {"config.json", "--in"},
               [&] { use(folder.file("model"), folder.file("model/vae/config.json")); });
  use(folder.file("model"), folder.file("model/new.json"));
  FileUse files;
  files.reads("--vae", folder.file("model/vae"));
  files.fills("--out", folder.file("model"));
  expect_error(ErrorCode::invalid_argument, {"--out", "--vae"}, [&] { files.check(); });
}

TEST(FileUse, AModelIsWhatItsIndexNames) {
  const TempFolder folder;
  const auto write = [&](const std::string& output) {
    FileUse files;
    files.reads_model("--model", folder.path());
    files.writes("--out", folder.file(output));
    files.check();
  };
  write("model_index.json");  // none yet, and a broken one is another's business
  io::atomic_write(folder.file("model_index.json"), R"({"_class_name": "FluxPipeline", "vae": [1], "": 1})");
  for (const char* name : {"vae/config.json", "apple.png", "more/apple.png"})
    io::atomic_write(folder.file(name), "x");
  for (const char* name : {"model_index.json", "vae/config.json", "vae"})
    EXPECT_THROW(write(name), Error) << name;
  for (const char* name : {"apple.png", "more/apple.png", "vae/new.json"}) write(name);
  io::atomic_write(folder.file("model_index.json"), "[");
  write("apple.png");
}

TEST(FileUse, ShardsThatAnIndexNames) {
  const TempFolder folder;
  const std::string index = folder.file("model.safetensors.index.json");
  io::atomic_write(index, R"({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}})");
  io::atomic_write(folder.file("model-2.safetensors"), "data");
  expect_error(ErrorCode::invalid_argument, {"model-2.safetensors", "would be written over"},
               [&] { use(index, folder.file("model-2.safetensors")); });
  use(index, folder.file("other.safetensors"));
  io::atomic_write(index, "{");
  use(index, folder.file("model-2.safetensors"));  // who opens the index says what is wrong
}

TEST(FileUse, TwoOutputsInOnePlace) {
  const TempFolder folder;
  const auto both = [&](const std::string& a, const std::string& b) {
    FileUse files;
    files.writes("--grid", a);
    files.writes("--html", b);
    files.check();
  };
  for (const char* name : {"x", "./x", "new/../x", "x/below"})
    expect_error(ErrorCode::invalid_argument, {"--html", "--grid"},
                 [&] { both(folder.file("x"), folder.file(name)); });
  expect_error(ErrorCode::invalid_argument, {"--html", "--grid"},
               [&] { both(folder.file("x/below"), folder.file("x")); });
  both(folder.file("x"), folder.file("xy"));
  both("/dev/null", "/dev/null");
  io::atomic_write(folder.file("a"), "");
  fs::create_hard_link(folder.file("a"), folder.file("b"));
  expect_error(ErrorCode::invalid_argument, {"--html"}, [&] { both(folder.file("a"), folder.file("b")); });
}

TEST(FileUse, WhatCannotBeWritten) {
  const TempFolder folder;
  io::atomic_write(folder.file("file"), "");
  fs::create_directory(folder.file("folder"));
  fs::create_symlink("loop", folder.file("loop"));
  const std::string longest(256, 'n'), longer(5000, 'n');
  for (const std::string& name :
       {std::string("folder"), std::string("file/below"), std::string("file/more/below"), std::string("loop"),
        std::string("loop/below"), longest, longest + "/x", longer}) {
    expect_error(ErrorCode::io, {"--out"}, [&] { use("", folder.file(name)); });
  }
  expect_error(ErrorCode::io, {"--out", "/proc"}, [&] { use("", "/proc/x/y"); });
  use("", folder.file(std::string(255, 'n')));
  use("", folder.file("new/folders/x"));
  use("", "/dev/null");
  FileUse files;
  files.fills("--out", folder.file("file"));
  expect_error(ErrorCode::io, {"--out", "folder is needed"}, [&] { files.check(); });
  EXPECT_EQ(io::folder_entries(folder.path()).size(), 2u);
}

TEST(FileUse, ARunKeepsItsOwnFiles) {
  const TempFolder folder;
  io::atomic_write(folder.file("data/run/checkpoint.safetensors"), "");
  const auto run = [&](const std::string& input, const std::string& out) {
    FileUse files;
    files.reads("--data", folder.file(input));
    files.runs_in("--out", folder.file(out), {"checkpoint.safetensors"}, {"model"});
    files.check();
  };
  run("data", "data/run");
  run("none", "data/run");
  expect_error(ErrorCode::invalid_argument, {"--out", "--data"}, [&] { run("data", "data"); });
  io::atomic_write(folder.file("data/run/model/config.json"), "");
  expect_error(ErrorCode::invalid_argument, {"model", "--data"}, [&] { run("data/run/model", "data/run"); });
  expect_error(ErrorCode::invalid_argument, {"checkpoint", "--data"},
               [&] { run("data/run/checkpoint.safetensors", "data/run"); });
}

}  // namespace

namespace cli {
namespace {

using test::Result;
using test::vkflux;

/// A name for each input that the commands need; only what would be lost must be there.
class Outputs : public test::Cli {
 protected:
  void refused(const std::string& line, int code, const std::vector<std::string>& named) const {
    const Result r = vkflux(line, "2>&1");
    EXPECT_EQ(r.code, code) << line << "\n" << r.out;
    for (const std::string& name : named)
      EXPECT_NE(r.out.find(name), std::string::npos) << name << "\n" << r.out;
  }
};

TEST_F(Outputs, EveryCommandRefusesToWriteOverItsInputs) {
  const std::string model = "\"" + test::tiny_pipeline() + "\"",
                    prompts = file("animals.json", R"(["cat", "dog"])"), list = file("p.txt", "cat\n"),
                    ttr = file("ttr.safetensors", "x"), data = path("data"),
                    picture = file("picture.png", "x");
  fs::create_directories(data);
  fs::create_directories(path("run/vae"));
  file("run/ttr.safetensors", "x");
  file("run/vae/config.json", "{}");
  const std::string sample = "sample --model " + model + " ",
                    controller = " --ttr " + ttr + " --prompts " + list + " ";
  struct Case {
    std::string line;
    std::vector<std::string> named;
  };
  const Case cases[] = {
      {sample + "--prompts " + prompts + " --seeds 1,2 --out " + path("animals.png"),
       {"animals.json", "--prompts"}},
      {sample + "--prompts " + list + " --out " + list + ".png --html " + list, {"p.txt", "--html"}},
      {sample + "--prompt x --init " + picture + " --out " + picture, {"--out", "--init"}},
      {sample + "--prompt x --out " + picture + " --grid " + picture, {"--out", "--grid"}},
      {sample + "--prompt x --prompt y --out " + path("a.png") + " --trace " + path("a-02.png"),
       {"a-02.png", "--trace"}},
      {sample + "--prompt x --seeds 1,2 --out " + path("s") + " --html " + path("s/sheet.png"),
       {"sheet.png", "--html"}},
      {sample + "--prompt x --profile-trace " + test::tiny_pipeline() + "/vae/config.json --out " +
           path("a.png"),
       {"--profile-trace", "--model"}},
      {sample + "--prompt x --compare --ttr " + path("a-compare.json") + " --out " + path("a.png"), {}},
      {"report --model " + model + " --prompt x --ttr " + ttr + " --out " + ttr, {"--out", "--ttr"}},
      {"train autoencoder --data " + data + " --out " + data, {"--out", "--data"}},
      {"train autoencoder --data " + data + " --from " + path("run/vae") + " --out " + path("run"),
       {"--out", "--from"}},
      {"train flow --data " + data + " --vae " + model + " --out " + path("o") + " --profile-trace " +
           path("o/metrics.jsonl"),
       {"metrics.jsonl"}},
      {"distill --model " + model + " --prompt x --init " + path("run/ttr.safetensors") + " --out " +
           path("run"),
       {"ttr.safetensors", "--init"}},
      {"train-controller --model " + model + controller + "--out " + test::tiny_pipeline() + "/vae",
       {"--out", "--model"}},
      {"evaluate-controller --model " + model + controller + "--controller c --out " + list,
       {"--out", "--prompts"}},
      {"bench --compare " + list + " --csv " + list, {"--csv", "--compare"}},
      {"bench --csv " + path("b") + " --plot " + path("b"), {"--csv", "--plot"}},
      {"verify --dump " + folder_.string() + " " + ttr, {"--dump", "ttr.safetensors"}},
      {"dataset emoji --out " + path("run") + " --font " + file("run/index.json", "{}"),
       {"--out", "--font"}}};
  file("a-compare.json", "{}");
  for (const Case& c : cases) refused(c.line, kUsage, c.named);
  EXPECT_EQ(io::read_file(prompts), R"(["cat", "dog"])");
  EXPECT_EQ(io::read_file(ttr), "x");
  fs::create_directories(path("own/images"));
  refused("dataset emoji --out " + path("own"), kUsage, {"images"});
}

TEST_F(Outputs, WhatCannotBeWrittenIsKnownBeforeTheWork) {
  const std::string model = "\"" + test::tiny_pipeline() + "\"", x = file("x", "text");
  const std::string controller = " --ttr t --prompts p ";
  for (const std::string& line : std::vector<std::string>{
           std::string("sample --model m --prompt x --out ") + x,
           "sample --model m --prompt x --out " + x + "/y.png",
           "sample --model m --prompt x --grid " + folder_.string(),
           "sample --model m --prompt x --out " + path(std::string(300, 'n') + ".png"),
           "sample --model m --prompt x --seeds 1,2 --out " + x,
           "report --model m --prompt x --ttr t --out " + x + "/r.html",
           "train autoencoder --data d --out " + x, "train flow --data d --vae v --out " + x + "/run",
           "distill --model m --prompt x --out " + x,
           "train-controller --model m" + controller + "--out " + x,
           "evaluate-controller --model m --controller c" + controller + "--out " + folder_.string(),
           "bench --csv " + folder_.string(), "bench --plot /proc/x/y", "verify --dump " + x + " " + x,
           "dataset emoji --out " + x, std::string("train autoencoder --data d --out /proc/run")}) {
    refused(line, kBadFile, {"--"});
  }
  EXPECT_EQ(io::read_file(x), "text");
  refused("sample --model m --prompt x --out " + path("a.bmp"), kUsage, {"a.bmp", ".png", ".webp"});
}

}  // namespace
}  // namespace cli
}  // namespace vkflux
