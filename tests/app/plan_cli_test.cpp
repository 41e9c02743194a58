// vkflux plan, and drawing within a budget: the command line of memory.
#include <nlohmann/json.hpp>

#include "app/cli/memory_options.h"
#include "model/io/file.h"
#include "tests/app/cli_fixture.h"
#include "tests/harness/expect_error.h"

namespace vkflux {
namespace {

using nlohmann::json;
using test::vkflux;

const std::string kModel = std::string(VKFLUX_SOURCE_DIR) + "/models/emoji";

TEST(MemorySizes, AreGibibytesUnlessTheySayOtherwise) {
  EXPECT_EQ(memory_size("8", "--vram"), 8ull << 30);
  EXPECT_EQ(memory_size("7.5GiB", "--vram"), 15ull << 29);
  EXPECT_EQ(memory_size("2G", "--vram"), 2ull << 30);
  EXPECT_EQ(memory_size("900MiB", "--vram"), 900ull << 20);
  EXPECT_EQ(memory_size("512M", "--vram"), 512ull << 20);
  for (const char* text :
       {"", "0", "-1", "nan", "inf", "8TiB", "GiB", "8 GiB", "1e300", "0x8", "0.0000000001"}) {
    test::expect_error(ErrorCode::invalid_argument, {"--vram", "GiB"}, [&] { memory_size(text, "--vram"); });
  }
}

class PlanCli : public test::Cli {};

// The three sizes of card that FLUX.1 is planned for.
TEST_F(PlanCli, APublicModelIsPlannedFromItsShapesAlone) {
  const struct {
    const char *weights, *vram;
    bool streams;
  } rows[] = {{"q4_k", "8", true}, {"q6_k", "12", true}, {"f8", "12", true}, {"f8", "16", false}};
  for (const auto& row : rows) {
    const auto r = vkflux(std::string("plan --synthetic flux1-dev --size 1024x1024 --json --weights ") +
                          row.weights + " --vram " + row.vram);
    ASSERT_EQ(r.code, 0) << r.out;
    const json plan = json::parse(r.out);
    EXPECT_TRUE(plan["fits"]);
    EXPECT_LE(plan["peak_block_bytes"], plan["budget_bytes"]);
    EXPECT_EQ(plan["phases"].size(), 3u);
    EXPECT_EQ(plan["parts"][2]["streamed_layers"] > 0, row.streams) << row.weights << " " << row.vram;
  }
  const auto small = vkflux("plan --synthetic flux1-dev --weights f32 --vram 100MiB");
  EXPECT_EQ(small.code, 3);
  EXPECT_NE(small.out.find("doesn't fit"), std::string::npos);
}

TEST_F(PlanCli, SampleKeepsToABudgetWithTheSamePicture) {
  const std::string draw =
      "sample --model " + kModel + " --prompt \"red apple\" --steps 3 --json --no-prompt-cache --out ";
  const auto whole = vkflux(draw + path("whole.png"));
  ASSERT_EQ(whole.code, 0);
  const json free = json::parse(whole.out)["memory"];
  const uint64_t peak = free["peak_bytes"], measured = free["measured_peak_bytes"];
  EXPECT_NEAR(static_cast<double>(peak), static_cast<double>(measured), 0.05 * static_cast<double>(measured));
  const auto part = vkflux(draw + path("part.png") + " --vae-tiling off --vram " +
                           std::to_string(peak * 3 / 4 >> 20) + "MiB");
  ASSERT_EQ(part.code, 0) << part.out;
  EXPECT_LT(json::parse(part.out)["memory"]["measured_peak_bytes"].get<uint64_t>(), measured);
  EXPECT_EQ(io::read_file(path("whole.png")), io::read_file(path("part.png")));
}

TEST_F(PlanCli, WrongFlagsAreSaid) {
  EXPECT_EQ(vkflux("plan").code, 2);
  EXPECT_EQ(vkflux("plan --synthetic flux9").code, 2);
  EXPECT_EQ(vkflux("plan --model " + kModel + " --vram nan").code, 2);
  EXPECT_EQ(vkflux("plan --model " + kModel + " --vae-tile 0").code, 2);
  EXPECT_EQ(vkflux("plan --model " + kModel + " --vae-tile 8x").code, 2);
  EXPECT_EQ(vkflux("plan --model " + kModel + " --vae-overlap 1").code, 2);
  EXPECT_EQ(vkflux("plan --model " + path("nothing")).code, 4);
}

}  // namespace
}  // namespace vkflux
