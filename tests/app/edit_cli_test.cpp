// Pictures in, pictures out as people use it: flags, files that come back, textures.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "app/cli/cli.h"
#include "model/io/file.h"
#include "model/io/json.h"
#include "model/io/picture.h"
#include "model/io/picture_file.h"
#include "model/io/png.h"
#include "tests/app/cli_fixture.h"
#include "tests/harness/pictures.h"
#include "tests/harness/tiny_pipeline.h"

namespace vkflux::cli {
namespace {

using test::Cli;
using test::Result;
using test::vkflux;

std::string sample(const std::string& flags) {
  return "sample --model " + test::tiny_pipeline() + " --cfg 1 " + flags;
}

std::string text_of(const std::string& path, const std::string& keyword) {
  for (const auto& [key, text] : io::read_picture_text(path)) {
    if (key == keyword) return text;
  }
  return "";
}

TEST_F(Cli, APictureIsDrawnAgainFromWhatItSays) {
  for (const std::string end : {".png", ".jpg", ".webp"}) {
    const std::string first = path("first" + end), second = path("second.png"), third = path("third.png");
    const Result r =
        vkflux(sample("--prompt 'a \"red\" caf\u00e9' --seed 18446744073709551615 --steps 2 --size 24x8 "
                      "--noise mersenne --quality 95 --out " +
                      first),
               "2>&1");
    ASSERT_EQ(r.code, kOk) << r.out;
    ASSERT_EQ(vkflux(sample("--from-image " + first + " --out " + second)).code, kOk);
    const std::string again = text_of(second, "vkflux");
    EXPECT_EQ(again, text_of(first, "vkflux"));
    EXPECT_EQ(text_of(second, "parameters"), text_of(first, "parameters"));
    if (end == ".png") {
      EXPECT_EQ(io::read_png(first).rgba, io::read_png(second).rgba);
    }
    const Result other =
        vkflux(sample("--from-image " + first + " --steps 1 --prompt dog --out " + third), "2>&1");
    ASSERT_EQ(other.code, kOk) << other.out;
    const auto settings = io::parse_json(text_of(third, "vkflux"), "x");
    EXPECT_EQ(settings.at("steps"), 1);
    EXPECT_EQ(settings.at("prompt"), "dog");
    EXPECT_EQ(settings.at("seed"), 18446744073709551615u);
    EXPECT_NE(other.out.find("by vkflux"), std::string::npos) << other.out;
  }
}

TEST_F(Cli, PicturesThatSayNothingOrNonsense) {
  io::write_png(path("plain.png"), test::flat(8, 8, 1, 2, 3));
  EXPECT_EQ(vkflux(sample("--from-image " + path("plain.png") + " --out " + path("o.png"))).code, kBadFile);
  io::write_png(
      path("odd.png"), test::flat(8, 8, 1, 2, 3),
      {{"vkflux", R"({"prompt": "x", "steps": 1e9, "size": "7", "seed": -3, "weights": "q9", "colour": 1,
                                "width": 16, "height": 8, "help": true})"}});
  const Result r =
      vkflux(sample("--from-image " + path("odd.png") + " --steps 1 --out " + path("o.png")), "2>&1");
  EXPECT_EQ(r.code, kOk) << r.out;
  for (const char* word : {"--seed", "--weights", "--colour"})
    EXPECT_NE(r.out.find(word), std::string::npos) << word << "\n" << r.out;
}

TEST_F(Cli, MasksNeedAPictureAndModelsSayWhatTheyNeed) {
  io::write_png(path("mask.png"), test::flat(8, 8, 255, 255, 255));
  const auto refused = [&](const std::string& flags, const std::string& word) {
    const Result r = vkflux(sample("--prompt x --out " + path("o.png") + " " + flags), "2>&1");
    EXPECT_EQ(r.code, kUsage) << flags << r.out;
    EXPECT_NE(r.out.find(word), std::string::npos) << flags << r.out;
  };
  refused("--mask " + path("mask.png"), "--init");
  refused("--composite", "--mask");
  refused("--control " + path("mask.png"), "--control");
  refused("--init " + path("mask.png") + " --fit squash", "--fit");
  refused("--increase-ref-index", "--ref");
  refused("--circular z", "--circular");
  refused("--preview " + path("p.gif"), "--preview");
  refused("--quality 0", "--quality");
  EXPECT_EQ(
      vkflux(sample("--prompt x --steps 1 --init " + path("none.png") + " --out " + path("o.png"))).code,
      kBadFile);
}

TEST_F(Cli, InpaintingKeepsWhatTheMaskKeeps) {
  io::Image8 init = test::flat(16, 8, 0, 0, 0), mask = test::flat(16, 8, 0, 0, 0);
  for (size_t i = 0; i < init.rgba.size(); ++i) {
    if (i % 4 != 3) init.rgba[i] = static_cast<uint8_t>(i * 7);
    if (i % 4 != 3 && i % 64 >= 32) mask.rgba[i] = 255;
  }
  io::write_png(path("init.png"), init);
  io::write_png(path("mask.png"), mask);
  const Result r = vkflux(
      sample("--prompt x --steps 2 --init " + path("init.png") + " --mask " + path("mask.png") +
             " --strength 1 --composite --preview " + path("preview.webp") + " --out " + path("o.png")),
      "2>&1");
  ASSERT_EQ(r.code, kOk) << r.out;
  const io::Image8 drawn = io::read_png(path("o.png"));
  bool painted = false;
  for (size_t i = 0; i < init.rgba.size(); ++i) {
    if (mask.rgba[i - i % 4] == 0) {
      ASSERT_EQ(drawn.rgba[i], init.rgba[i]) << i;
    } else {
      painted = painted || drawn.rgba[i] != init.rgba[i];
    }
  }
  EXPECT_TRUE(painted);
  const io::Picture preview = io::read_picture(path("preview.webp"));
  EXPECT_EQ(preview.facts.format, "WebP");
  EXPECT_EQ(preview.image.width, 16);
  const auto settings = io::parse_json(text_of(path("o.png"), "vkflux"), "x");
  EXPECT_EQ(settings.at("mask"), "mask.png");
  EXPECT_EQ(settings.at("strength"), 1);
}

}  // namespace
}  // namespace vkflux::cli
