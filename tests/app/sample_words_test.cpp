// `vkflux sample`: what isn't done as asked is said or refused, and what is written can be read by everybody.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "app/cli/cli.h"
#include "model/io/file.h"
#include "model/io/json.h"
#include "model/io/png.h"
#include "tests/app/cli_fixture.h"
#include "tests/harness/tiny_pipeline.h"

namespace vkflux::cli {
namespace {

using test::Result;
using test::vkflux;

class SampleWords : public test::Cli {
 protected:
  std::string sample(const std::string& more) const {
    return "sample --model \"" + test::tiny_pipeline() + "\" --steps 1 " + more;
  }
  static size_t count(const std::string& text, const std::string& part) {
    size_t n = 0;
    for (size_t at = 0; (at = text.find(part, at)) != std::string::npos; ++at) ++n;
    return n;
  }
  static std::string entry(const io::PngText& text, const std::string& key) {
    for (const auto& [name, value] : text) {
      if (name == key) return value;
    }
    return {};
  }
};

TEST_F(SampleWords, AnAdjustedSizeIsSaidOnce) {
  const Result r = vkflux(sample("--prompt x --size 18x9 --seeds 1,2 --out " + path("s")), "2>&1");
  ASSERT_EQ(r.code, kOk) << r.out;
  EXPECT_EQ(count(r.out, "18x9"), 1u) << r.out;
  EXPECT_EQ(count(r.out, "16x8 are drawn"), 1u) << r.out;
  const Result exact = vkflux(sample("--prompt x --size 16x8 --out " + path("e.png")), "2>&1");
  EXPECT_EQ(count(exact.out, "drawn"), 0u) << exact.out;
}

TEST_F(SampleWords, WhatCannotBeMeantIsRefused) {
  for (const char* flags :
       {"--prompt x --prompt y --batch 3", "--prompt x --strength 0.5", "--prompt x --sweep-mode clock",
        "--prompt x --policy threshold", "--prompt x --policy-temperature 2",
        "--prompt x --size 4294967360x64", "--prompt x --seed -1"}) {
    const Result r = vkflux(sample(flags), "2>&1");
    EXPECT_EQ(r.code, kUsage) << flags << "\n" << r.out;
    EXPECT_NE(r.out.find("--"), std::string::npos) << r.out;
  }
}

TEST_F(SampleWords, BytesThatAreNotUtf8LoseNoPicture) {
  EXPECT_EQ(vkflux(sample("--prompt \"$(printf 'caf\\351 x')\" --out " + path("no.png"))).code, kUsage);
  EXPECT_FALSE(std::filesystem::exists(path("no.png")));
  EXPECT_EQ(vkflux(sample("--prompt x --negative \"$(printf 'caf\\351')\" --out " + path("no.png"))).code,
            kUsage);
  const Result r =
      vkflux(sample("--json --prompt x --html " + path("\xfe.html") + " --out " + path("\xff.png")));
  ASSERT_EQ(r.code, kOk) << r.out;
  const auto picture = io::parse_json(r.out, "stdout").at("images")[0];
  EXPECT_TRUE(picture.at("file").get<std::string>().ends_with("/\ufffd.png"));
  EXPECT_EQ(io::parse_json(entry(io::read_png_text(path("\xff.png")), "vkflux"), "PNG").at("prompt"), "x");
  EXPECT_TRUE(std::filesystem::exists(path("\xfe.html")));
}

TEST_F(SampleWords, MetadataNameTheFirstPictureAndItsStrength) {
  io::write_png(path("a, b.png"), io::Image8{16, 8, std::vector<uint8_t>(16 * 8 * 4, 255)});
  const Result r = vkflux(
      sample("--prompt x --init \"" + path("a, b.png") + "\" --strength 0.5 --out " + path("c.png")), "2>&1");
  ASSERT_EQ(r.code, kOk) << r.out;
  const io::PngText text = io::read_png_text(path("c.png"));
  const std::string parameters = entry(text, "parameters");
  EXPECT_NE(parameters.find("Denoising strength: 0.5, Init image: \"a, b.png\""), std::string::npos)
      << parameters;
  const auto settings = io::parse_json(entry(text, "vkflux"), "PNG");
  EXPECT_EQ(settings.at("init"), "a, b.png");
  EXPECT_EQ(settings.at("strength"), 0.5);
}

TEST_F(SampleWords, AModelKeepsItsNameWhateverFollows) {
  const std::string name = io::last_name(test::tiny_pipeline());
  for (const char* end : {"", "/", "//", "/."}) {
    const Result r =
        vkflux("sample --model \"" + test::tiny_pipeline() + end + "\" --steps 1 --prompt x --html " +
                   path("p.html") + " --out " + path("p.png"),
               "2>&1");
    ASSERT_EQ(r.code, kOk) << r.out;
    EXPECT_NE(io::read_file(path("p.html")).find(name), std::string::npos) << end;
    EXPECT_NE(entry(io::read_png_text(path("p.png")), "parameters").find("Model: " + name),
              std::string::npos);
  }
}

TEST_F(SampleWords, PipesAreWrittenInto) {
  const Result r = vkflux(sample("--prompt x --out /dev/stdout"));
  ASSERT_EQ(r.code, kOk);
  EXPECT_EQ(r.out.substr(0, 4), "\x89PNG");
  ASSERT_EQ(vkflux(sample("--prompt x --out " + path("a.png") + " --html /dev/null")).code, kOk);
  EXPECT_TRUE(std::filesystem::is_character_file("/dev/null"));
}

TEST_F(SampleWords, PathsThatCannotBeAreBadFiles) {
  std::filesystem::create_symlink("loop", path("loop"));
  std::filesystem::create_directories(path("model/vae"));
  file("model/model_index.json", "{}");
  std::filesystem::create_symlink("loop", path("model/loop"));
  std::filesystem::create_symlink("none", path("model/vae/config.json"));
  const std::string longest(5000, 'n'), f = file("f", "x");
  for (const std::string& odd :
       {path("loop"), path("loop/below"), longest, f + "/below", path("none"), std::string("\"\"")}) {
    for (const std::string& line : {"inspect " + odd, "verify " + odd, "dataset list " + odd,
                                    "sample --prompt x --model " + odd, "sample --model m --prompts " + odd,
                                    "eval --data " + odd + " --model m", "bench --compare " + odd}) {
      const Result r = vkflux(line, "2>&1");
      EXPECT_TRUE(r.code == kBadFile || (odd == "\"\"" && r.code != 1)) << line.substr(0, 200) << "\n"
                                                                        << r.out.substr(0, 300);
      EXPECT_EQ(r.out.find("internal error"), std::string::npos) << line.substr(0, 200);
    }
  }
  EXPECT_EQ(vkflux("inspect " + path("model")).code, kOk);
}

}  // namespace
}  // namespace vkflux::cli
