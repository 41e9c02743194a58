// `vkflux convert` as people type it; what it writes is tested in tests/model/convert_test.cpp.
#include <fstream>
#include <nlohmann/json.hpp>

#include "model/io/gguf.h"
#include "tests/app/cli_fixture.h"

namespace vkflux::test {
namespace {

const std::string kTransformer = VKFLUX_SOURCE_DIR "/models/emoji/transformer";

using Convert = Cli;

TEST_F(Convert, WritesAndReports) {
  const Result r = vkflux("convert --json " + kTransformer + " " + path("t.gguf") + " --type q8_0");
  ASSERT_EQ(r.code, 0) << r.out;
  const auto report = nlohmann::json::parse(r.out);
  EXPECT_EQ(report.at("part"), "transformer");
  EXPECT_EQ(report.at("layout"), "bfl");
  EXPECT_GT(report.at("types").at("Q8_0").at("tensors").get<int>(), 10);
  const io::GgufFile file(path("t.gguf"));
  EXPECT_EQ(report.at("tensors"), file.tensors().size());
}

TEST_F(Convert, RefusesBadRequests) {
  const auto code = [&](const std::string& args) { return vkflux("convert " + args).code; };
  EXPECT_EQ(code(kTransformer), 2);                                                    // no OUT
  EXPECT_EQ(code(kTransformer + " " + path("t.bin")), 2);                              // no such container
  EXPECT_EQ(code(kTransformer + " " + path("t.safetensors") + " --type q8_0"), 2);     // it has no blocks
  EXPECT_EQ(code(kTransformer + " " + path("t.safetensors") + " --type q9"), 2);       // no such type
  EXPECT_EQ(code(kTransformer + " " + path("t.safetensors") + " --depth 1"), 2);       // nothing is made up
  EXPECT_EQ(code(path("none.safetensors") + " " + path("t.safetensors")), 4);          // no IN
  EXPECT_EQ(code(file("bad.gguf", "GGUFxxxxxxxx") + " " + path("t.safetensors")), 4);  // damaged
  EXPECT_FALSE(std::filesystem::exists(path("t.safetensors")));
  const std::string same = file("same.safetensors", "x");
  EXPECT_EQ(code(same + " " + same), 2);
}

}  // namespace
}  // namespace vkflux::test
