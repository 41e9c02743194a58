// The README's commands on a folder of somebody's own, and what is said of pictures, captions and prompts.
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>

#include "app/cli/cli.h"
#include "app/sweep/prompt_list.h"
#include "model/io/file.h"
#include "model/io/png.h"
#include "tests/app/cli_fixture.h"
#include "tests/harness/expect_error.h"
#include "tests/harness/pictures.h"
#include "tests/harness/tiny_pipeline.h"

namespace vkflux::cli {
namespace {

namespace fs = std::filesystem;
using test::Cli;
using test::expect_error;
using test::flat;
using test::Result;
using test::vkflux;

class OwnFolderCli : public Cli {
 protected:
  void SetUp() override {
    Cli::SetUp();
    fs::create_directories(path("photos/more"));
    file("photos/a.PNG", io::encode_png(flat(40, 40, 250, 0, 0)));
    file("photos/a.txt", "a red square on a table in a garden behind the old house\n");
    file("photos/b.jpg", test::jpeg_of(flat(64, 32, 0, 250, 0), {.exif = test::exif_of(6)}));
    file("photos/b.TXT", "a green square\r\ngreen\r\n");
    file("photos/more/c.webp", test::webp_of(flat(48, 48, 0, 0, 250, 128)));
    file("photos/more/c.txt",
         "\xEF\xBB\xBF"
         "a blue square");
    file("photos/lonely.png", io::encode_png(flat(8, 8, 1, 1, 1)));
  }
};

/// The commands of README.md that begin with these words.
std::vector<std::string> commands_of_readme(const std::vector<std::string>& starts) {
  std::istringstream lines(io::read_file(std::string(VKFLUX_SOURCE_DIR) + "/README.md"));
  std::vector<std::string> out;
  for (std::string line; std::getline(lines, line);) {
    for (const std::string& start : starts) {
      if (line.starts_with("build/vkflux " + start))
        out.push_back(line.substr(std::string("build/vkflux ").size()));
    }
  }
  return out;
}

TEST_F(OwnFolderCli, TheReadmesCommandsRunOnIt) {
  const auto commands = commands_of_readme({"train autoencoder ", "train flow ", "eval "});
  ASSERT_EQ(commands.size(), 3u);
  std::string said;
  for (std::string command : commands) {
    for (const auto& [from, to] :
         {std::pair<std::string, std::string>("data/emoji", path("photos")), {"runs/", path("runs/")}}) {
      for (size_t at = 0; (at = command.find(from, at)) != std::string::npos; at += to.size())
        command.replace(at, from.size(), to);
    }
    if (command.starts_with("train")) command += " --steps 1 --batch 2 --warmup 0";
    if (command.starts_with("eval")) command += " --steps 1 --json";
    const Result r = vkflux(command, "2>" + path("messages"));
    said += io::read_file(path("messages"));
    ASSERT_EQ(r.code, kOk) << command << "\n" << said;
    if (!command.starts_with("eval")) continue;
    const auto j = nlohmann::json::parse(r.out);
    EXPECT_GE(j.at("recall").at("names").get<int>(), 1);
    EXPECT_EQ(j.at("recall").at("candidates"), 3);
    EXPECT_EQ(j.at("autoencoder").at("seen").at("pictures"), j.at("recall").at("names"));
  }
  for (const char* words :
       {"without a caption", "lonely.png", "captions is longer than the model reads", "CLIP reads 6 tokens",
        "has no tokenizers: made from its captions", "EXIF says"}) {
    EXPECT_NE(said.find(words), std::string::npos) << words << "\n" << said;
  }
  EXPECT_TRUE(fs::exists(path("runs/flow/samples/final.png")));
  EXPECT_TRUE(fs::exists(path("runs/flow/model/tokenizer_2/spiece.model")));
}

TEST_F(OwnFolderCli, TokenizersAreMadeOrTaken) {
  const Result made = vkflux("dataset tokenizers --json " + path("photos"));
  ASSERT_EQ(made.code, kOk);
  EXPECT_EQ(nlohmann::json::parse(made.out).at("captions"), 4);
  EXPECT_TRUE(fs::exists(path("photos/tokenizer/vocab.json")));
  EXPECT_EQ(vkflux("dataset tokenizers " + path("photos")).code, kUsage);  // not over others, unasked
  const std::string emoji = std::string(VKFLUX_SOURCE_DIR) + "/models/emoji";
  EXPECT_EQ(vkflux("dataset tokenizers --replace --from " + emoji + " " + path("photos")).code, kOk);
  EXPECT_EQ(io::read_file(path("photos/tokenizer/vocab.json")),
            io::read_file(emoji + "/tokenizer/vocab.json"));
  EXPECT_EQ(
      vkflux("dataset tokenizers --out " + path("t") + " --from " + path("none") + " " + path("photos")).code,
      kBadFile);
}

TEST_F(OwnFolderCli, BadFilesAreNamedBeforeTheWork) {
  const auto refused = [&](const std::string& name) {
    for (const std::string& command : std::vector<std::string>{
             "dataset list ", "train autoencoder --out " + path("run") + " --steps 1 --data "}) {
      const Result r = vkflux(command + path("photos"), "2>&1");
      EXPECT_EQ(r.code, kBadFile) << command << r.out;
      EXPECT_NE(r.out.find(name), std::string::npos) << command << r.out;
    }
    EXPECT_FALSE(fs::exists(path("run/checkpoint.safetensors")));
  };
  std::string cut = test::jpeg_of(flat(64, 64, 9, 90, 9));
  cut.resize(cut.size() - 20);
  file("photos/b.jpg", cut);
  refused("b.jpg");
  file("photos/b.jpg", test::jpeg_of(flat(64, 64, 9, 90, 9)));
  file("photos/a.txt", "red\nr\xE9tro");
  refused("a.txt: line 2: byte 0xE9 at offset 5");
}

TEST_F(OwnFolderCli, InitIsUprightOnWhiteAndInItsShape) {
  const std::string model = test::tiny_pipeline();
  const auto draw = [&](const std::string& init, const std::string& out, const std::string& more = "") {
    const Result r = vkflux("sample --model " + model + " --prompt cat --strength 0.2 --steps 5 --init " +
                                path(init) + " --out " + path(out) + more,
                            "2>&1");
    EXPECT_EQ(r.code, kOk) << r.out;
    return r.out;
  };
  file("white.png", io::encode_png(flat(16, 8, 255, 255, 255)));
  file("clear.webp", test::webp_of(flat(16, 8, 0, 0, 0, 0)));
  io::Image8 tall = flat(8, 16, 255, 255, 255);  // stored lying, seen upright: 16 x 8
  file("turned.jpg", test::jpeg_of(tall, {.quality = 100, .exif = test::exif_of(8)}));
  io::Image8 wide = flat(48, 8, 0, 0, 0);
  for (int y = 0; y < 8; ++y) {
    for (int x = 16; x < 32; ++x)
      for (int c = 0; c < 3; ++c) wide.rgba[static_cast<size_t>(4 * (y * 48 + x) + c)] = 255;
  }
  file("wide.png", io::encode_png(wide));
  draw("white.png", "0.png");
  const auto want = io::read_png(path("0.png")).rgba;
  EXPECT_NE(draw("clear.webp", "1.png").find("transparent parts are shown on white"), std::string::npos);
  EXPECT_EQ(io::read_png(path("1.png")).rgba, want);
  EXPECT_NE(draw("turned.jpg", "2.png").find("EXIF"), std::string::npos);
  EXPECT_EQ(io::read_png(path("2.png")).rgba, want);
  EXPECT_NE(draw("wide.png", "5.png").find("48x8 is stretched to 16x8"), std::string::npos);
  EXPECT_NE(io::read_png(path("5.png")).rgba, want);
  EXPECT_NE(draw("wide.png", "3.png", " --fit crop").find("48x8"), std::string::npos);
  EXPECT_EQ(io::read_png(path("3.png")).rgba, want);
  const Result bad = vkflux("sample --model " + model + " --prompt cat --init " +
                                file("x.jpg", "\xFF\xD8\xFF") + " --out " + path("4.png"),
                            "2>&1");
  EXPECT_EQ(bad.code, kBadFile);
  EXPECT_NE(bad.out.find("x.jpg"), std::string::npos) << bad.out;
}

TEST_F(OwnFolderCli, CutPromptsAreSaidOnce) {
  const std::string model = test::tiny_pipeline();
  const Result r = vkflux("sample --model " + model + " --prompts " +
                              file("p.txt", "cat\r\n# none\r\na photo of a cat and a dog in the garden\r\n") +
                              " --seeds 1,2 --steps 1 --out " + path("sheet"),
                          "2>&1 >/dev/null");
  ASSERT_EQ(r.code, kOk) << r.out;
  const size_t at = r.out.find("1 of 2 prompts is longer than the model reads");
  ASSERT_NE(at, std::string::npos) << r.out;
  EXPECT_EQ(r.out.find("longer than the model reads", at + 60), std::string::npos) << r.out;
  EXPECT_NE(r.out.find("T5 reads 5 tokens (1 has more)"), std::string::npos) << r.out;
  EXPECT_NE(r.out.find("garden\" of \"a photo of a cat"), std::string::npos) << r.out;
}

TEST_F(OwnFolderCli, PromptFilesAreTextInAnyForm) {
  using List = std::vector<std::string>;
  const auto prompts = [&](const std::string& name, const std::string& bytes) {
    return read_prompt_file(file(name, bytes));
  };
  EXPECT_EQ(prompts("p.txt", "\xEF\xBB\xBF# c\nred\r\n\r\ngreen \t\rblue"), (List{"red", "green", "blue"}));
  EXPECT_EQ(prompts("p.txt", std::string("\xFE\xFF\0r\0\n\0g", 8)), (List{"r", "g"}));
  EXPECT_EQ(prompts("p.JSON", "\xEF\xBB\xBF[\"a\", \"b\"]"), (List{"a", "b"}));
  EXPECT_EQ(prompts("p.json", std::string("\xFF\xFE[\0\"\0a\0\"\0]\0", 12)), List{"a"});
  for (const char* name : {"p.txt", "p.json"}) {
    expect_error(ErrorCode::format, {name, "line 2", "0xE9"}, [&] { prompts(name, "[\"a\",\n\"r\xE9\"]"); });
  }
  expect_error(ErrorCode::format, {"p.json", "element 1", "NUL"},
               [&] { prompts("p.json", R"(["a", "b\u0000"])"); });
  expect_error(ErrorCode::format, {"p.txt", "no prompt"}, [&] { all_prompts({}, file("p.txt", "\n# x\n")); });
  expect_error(ErrorCode::invalid_argument, {"--negative", "0xFF", "offset 2"},
               [] { check_text("--negative", "\u00E9\xFF"); });
  expect_error(ErrorCode::invalid_argument, {"--prompt", "0xE9", "offset 1"},
               [] { all_prompts({"r\xE9"}, ""); });
  EXPECT_EQ(
      vkflux("sample --model models/emoji --prompts " + file("q.txt", "r\xE9") + " --out " + path("q.png"))
          .code,
      kBadFile);
}

}  // namespace
}  // namespace vkflux::cli
