// VKFLUX_VARIANT as a user sets it.
#include <cstdlib>

#include "app/cli/cli.h"
#include "tests/app/cli_fixture.h"
#include "tests/harness/temp_folder.h"
#include "tests/harness/tiny_pipeline.h"

namespace vkflux::test {
namespace {

TEST(VariantCli, NamesNobodyHasAreUsageErrors) {
  const TempFolder folder;
  const std::string draw =
      "sample --model \"" + tiny_pipeline() + "\" --prompt cat --steps 1 --out " + folder.file("x.png");
  setenv("VKFLUX_VARIANT", "attention:gpu", 1);
  const Result bad = vkflux(draw, "2>&1");
  setenv("VKFLUX_VARIANT", "", 1);
  const Result empty = vkflux(draw, "2>&1");
  unsetenv("VKFLUX_VARIANT");
  EXPECT_EQ(bad.code, cli::kUsage) << bad.out;
  for (const char* part : {"VKFLUX_VARIANT", "attention", "'gpu'", "coop, flash, panels, composed"})
    EXPECT_NE(bad.out.find(part), std::string::npos) << bad.out;
  EXPECT_EQ(empty.code, cli::kOk) << empty.out;
}

}  // namespace
}  // namespace vkflux::test
