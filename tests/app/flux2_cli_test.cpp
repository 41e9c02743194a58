// FLUX.2 by the program: its single blocks are distilled and routed, references counted as image tokens.
#include <nlohmann/json.hpp>

#include "tests/app/cli_fixture.h"

namespace vkflux::test {
namespace {

using nlohmann::json;

const std::string kKlein = std::string(VKFLUX_SOURCE_DIR) + "/tests/data/flux2_pipelines/klein";

class Flux2Cli : public Cli {};

TEST_F(Flux2Cli, DistilsAndRoutesItsSingleBlocks) {
  const std::string run = path("ttr"), ttr = run + "/ttr.safetensors";
  const Result distilled = vkflux(
      "distill --model " + kKlein + " --out " + run +
          " --prompt \"a cat\" --sampling-steps 2 --updates 8 --landmark-min 2 --feature-dim 32 --size 16x16 "
          "--readiness-min-updates 1 --readiness-threshold 2 --quiet",
      "2>&1");
  ASSERT_EQ(distilled.code, 0) << distilled.out;
  const Result drawn = vkflux("sample --json --model " + kKlein +
                              " --prompt \"a cat\" --size 24x16 --steps 2 --seed 3 --ref " + kKlein +
                              "/../ref0.png --ttr " + ttr + " --out " + path("a.png"));
  ASSERT_EQ(drawn.code, 0) << drawn.out;
  const json all = json::parse(drawn.out);
  ASSERT_EQ(all.at("steps").size(), 2u);
  for (const json& step : all.at("steps")) EXPECT_EQ(step.at("student"), json({0, 1}));
  const Result trained = vkflux("train-controller --model " + kKlein + " --ttr " + ttr + " --prompts " +
                                    file("prompts.txt", "a cat\n") + " --out " + path("controller") +
                                    " --iterations 1 --plans 2 --size 16x16 --steps 2",
                                "2>&1");
  EXPECT_EQ(trained.code, 0) << trained.out;
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
