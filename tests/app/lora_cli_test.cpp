// `--lora` as people give it.
#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>

#include "app/cli/cli.h"
#include "app/loras.h"
#include "model/io/png.h"
#include "model/io/safetensors.h"
#include "tests/app/cli_fixture.h"
#include "tests/harness/expect_error.h"
#include "tests/harness/tiny_pipeline.h"

namespace vkflux::cli {
namespace {

using Json = nlohmann::json;
using test::Result;
using test::vkflux;

class LoraCli : public test::Cli {
 protected:
  std::string lora(const std::string& name, const std::string& module) const {
    const auto tensor = [&](const std::string& ending, const std::vector<int64_t>& shape) {
      return io::tensor_data(module + ending, shape, std::vector<float>(32, 0.3f));
    };
    io::write_safetensors(path(name),
                          {tensor(".lora_down.weight", {2, 16}), tensor(".lora_up.weight", {16, 2})});
    return path(name);
  }
  std::string style() const { return lora("style.safetensors", "lora_unet_double_blocks_0_img_attn_proj"); }
  std::string sample(const std::string& prompt, const std::string& more) const {
    return "sample --model \"" + test::tiny_pipeline() + "\" --prompt \"" + prompt + "\" --seed 3 " + more;
  }
};

TEST_F(LoraCli, PicturesSayWhatTheyWereMadeWith) {
  const Result flag =
      vkflux(sample("a cat", "--profile --lora " + style() + ":0.5 --out " + path("flag.png")), "2>&1");
  ASSERT_EQ(flag.code, kOk) << flag.out;
  EXPECT_NE(flag.out.find("2 of 2 tensors match"), std::string::npos) << flag.out;
  EXPECT_NE(flag.out.find("/lora "), std::string::npos) << flag.out;
  const auto list = io::read_png_text(path("flag.png"));
  const std::map<std::string, std::string> text(list.begin(), list.end());
  const Json settings = Json::parse(text.at("vkflux"));
  EXPECT_EQ(settings["loras"][0]["name"], "style.safetensors");
  EXPECT_EQ(settings["loras"][0]["weight"], 0.5);
  EXPECT_TRUE(settings["loras"][0].contains("hash"));
  EXPECT_NE(text.at("parameters").find("Lora: \"style.safetensors: 0.5\""), std::string::npos);
  const Result tag =
      vkflux(sample("<lora:style:0.5> a cat", "--lora-dir " + folder_.string() + " --out " + path("tag.png")),
             "2>&1");
  ASSERT_EQ(tag.code, kOk) << tag.out;
  EXPECT_EQ(io::read_png(path("tag.png")).rgba, io::read_png(path("flag.png")).rgba);
}

TEST_F(LoraCli, OthersAreRefused) {
  const Result r =
      vkflux(sample("a cat", "--lora " + lora("other.safetensors", "lora_unet_down_blocks_0")), "2>&1");
  EXPECT_EQ(r.code, kBadFile) << r.out;
  EXPECT_NE(r.out.find("none of its tensors"), std::string::npos) << r.out;
  EXPECT_EQ(vkflux(sample("a cat", "--lora " + style() + ":nan")).code, kUsage);
}

TEST_F(LoraCli, WeightsFollowTheLastColon) {
  EXPECT_EQ(parse_lora("a.safetensors").weight, 1);
  EXPECT_EQ(parse_lora("a.safetensors:-0.5").weight, -0.5f);
  EXPECT_EQ(parse_lora("c:/a.safetensors:2").path, "c:/a.safetensors");
  EXPECT_EQ(parse_lora(file("b:3", "")).path, path("b:3"));
  for (const char* text : {"a:", "a:x", "a:nan", "a:inf", "a:1e9", "a:0.5 "})
    test::expect_error(ErrorCode::invalid_argument, {"--lora", "weight"}, [&] { parse_lora(text); });
}

TEST_F(LoraCli, TagsAreTakenOutOfPrompts) {
  style();
  LoraArgs args;
  args.folder = folder_.string();
  std::vector<std::string> prompts{"a <lora:style:0.25>cat", "<lora:style:.25> a dog"};
  args.take_tags(prompts);
  EXPECT_EQ(prompts, (std::vector<std::string>{"a cat", "a dog"}));
  ASSERT_EQ(args.uses.size(), 1u);
  EXPECT_EQ(args.uses[0].weight, 0.25f);
  const auto refuses = [&](ErrorCode code, std::vector<std::string> texts, const std::string& word) {
    test::expect_error(code, {word}, [&] { args.take_tags(texts); });
  };
  refuses(ErrorCode::invalid_argument, {"<lora:style> a", "b"}, "other LoRAs");
  refuses(ErrorCode::io, {"<lora:stile> a"}, "nearest: style");
  refuses(ErrorCode::invalid_argument, {"<lora:../style> a"}, "name of a file");
  refuses(ErrorCode::invalid_argument, {"<lora:style:nan> a"}, "nan");
}

}  // namespace
}  // namespace vkflux::cli
