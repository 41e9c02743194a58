// The shipped miniature against what diffusers and transformers make of its files
// (scripts/check_diffusers.py --vectors).
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "model/io/json.h"
#include "model/io/png.h"
#include "tests/app/cli_fixture.h"
#include "tests/harness/base64.h"

namespace vkflux::test {
namespace {

const std::string kModel = std::string(VKFLUX_SOURCE_DIR) + "/models/emoji";

nlohmann::json vectors() {
  return nlohmann::json(io::read_json(std::string(VKFLUX_SOURCE_DIR) + "/tests/data/emoji_diffusers.json"));
}

std::string quoted(const std::string& text) {
  std::string out = "'";
  for (const char c : text) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

TEST_F(Cli, TokensAreTransformers) {
  const nlohmann::json wanted = vectors().at("tokens");
  std::string command = "tokenize --json --model \"" + kModel + "\"";
  for (const auto& row : wanted) command += " --prompt " + quoted(row.at("text").get<std::string>());
  const Result r = vkflux(command, "2>&1");
  ASSERT_EQ(r.code, 0) << r.out;
  const auto prompts = nlohmann::json::parse(r.out).at("prompts");
  ASSERT_EQ(prompts.size(), wanted.size());
  for (size_t i = 0; i < wanted.size(); ++i) {
    EXPECT_EQ(prompts[i].at("prompt"), wanted[i].at("text"));
    for (const auto& encoder : prompts[i].at("encoders"))
      EXPECT_EQ(encoder.at("encoded"), wanted[i].at(encoder.at("name").get<std::string>()))
          << wanted[i].at("text") << " " << encoder.at("name");
  }
}

TEST_F(Cli, TokenizeShowsWhatIsCut) {
  const Result r =
      vkflux("tokenize --json --model \"" + kModel + "\" --prompt 'red apple on seven small green leaves'");
  ASSERT_EQ(r.code, 0);
  const auto clip = nlohmann::json::parse(r.out).at("prompts")[0].at("encoders")[0];
  EXPECT_EQ(clip.at("name"), "tokenizer");
  EXPECT_EQ(clip.at("length"), 8);
  EXPECT_EQ(clip.at("room"), 6);
  EXPECT_EQ(clip.at("ids").size(), 6u);
  EXPECT_EQ(clip.at("pieces")[0], "red</w>");
  EXPECT_EQ(clip.at("cut").at("ids").size(), clip.at("tokens").get<size_t>() - 6);
  EXPECT_GT(clip.at("cut").at("ids").size(), 0u);
  const Result shown = vkflux("tokenize --model \"" + kModel + "\" --prompt 'red apple'");
  EXPECT_NE(shown.out.find("red</w>"), std::string::npos) << shown.out;
  EXPECT_NE(vkflux("tokenize --model " + path("absent") + " --prompt x").code, 0);
}

TEST_F(Cli, PicturesAreDiffusers) {
  const nlohmann::json all = vectors();
  for (const auto& row : all.at("pictures")) {
    const std::string prompt = row.at("prompt");
    const Result r = vkflux("sample --model \"" + kModel + "\" --noise mersenne --seed " +
                            std::to_string(all.at("seed").get<int>()) + " --prompt " + quoted(prompt) +
                            " --out " + path("picture.png"));
    ASSERT_EQ(r.code, 0);
    const io::Image8 ours = io::read_png(path("picture.png"));
    const std::vector<uint8_t> theirs = from_base64(row.at("rgb"));
    ASSERT_EQ(ours.width, row.at("width"));
    ASSERT_EQ(theirs.size(), static_cast<size_t>(ours.width) * static_cast<size_t>(ours.height) * 3);
    int most = 0;
    for (size_t i = 0; i < theirs.size(); ++i)
      most = std::max(most, std::abs(int{theirs[i]} - int{ours.rgba[i / 3 * 4 + i % 3]}));
    EXPECT_LE(most, 1) << prompt;
  }
}

}  // namespace
}  // namespace vkflux::test
