// FLUX.2 by the program: its single blocks are distilled and routed, references counted as image tokens.
#include <nlohmann/json.hpp>

#include "tests/app/cli_fixture.h"

namespace vkflux::test {
namespace {

using nlohmann::json;

const std::string kKlein = std::string(VKFLUX_SOURCE_DIR) + "/tests/data/flux2_pipelines/klein";

class Flux2Cli : public Cli {};

TEST_F(Flux2Cli, DistilsAndRoutesItsSingleBlocks) {
  const std::string run = path("ttr");
  const Result distilled = vkflux(
      "distill --model " + kKlein + " --out " + run +
          " --prompt \"a cat\" --sampling-steps 2 --updates 8 --landmark-min 2 --feature-dim 32 --size 16x16 "
          "--readiness-min-updates 1 --readiness-threshold 2 --no-held-out --quiet --json",
      "2>&1");
  ASSERT_EQ(distilled.code, 0) << distilled.out;
  const Result described = vkflux("inspect --json " + run + "/ttr.safetensors");
  ASSERT_EQ(described.code, 0);
  EXPECT_NE(described.out.find("single_blocks.1"), std::string::npos) << described.out;
  const std::string draw = "sample --json --model " + kKlein +
                           " --prompt \"a cat\" --size 24x16 --steps 2 --seed 3 --ref " + kKlein +
                           "/../ref0.png --ttr " + run + "/ttr.safetensors --out " + path("a.png");
  const Result routed = vkflux(draw, "2>&1");
  ASSERT_EQ(routed.code, 0) << routed.out;
  const json all = json::parse(routed.out.substr(routed.out.find("{\n")));
  int64_t students = 0;
  for (const json& step : all.at("steps")) students += step.dump().find("hkr") != std::string::npos;
  EXPECT_GT(students, 0) << routed.out;
}

TEST_F(Flux2Cli, PlansThePublishedModels) {
  const Result plan =
      vkflux("plan --json --synthetic flux2-klein-4b --weights q4_k --size 1024x1024 --vram 8");
  ASSERT_EQ(plan.code, 0) << plan.out;
  const json p = json::parse(plan.out);
  EXPECT_TRUE(p.at("fits").get<bool>());
  EXPECT_EQ(p.at("parts").size(), 3u);
}

}  // namespace
}  // namespace vkflux::test
