// Golden files whose options have other values and forms than usual (tests/data/make_goldens.py), and the
// reader of options.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "app/verify/case.h"
#include "app/verify/options.h"
#include "tests/harness/gpu.h"
#include "tests/harness/temp_folder.h"

namespace vkflux::verify {
namespace {

using Json = nlohmann::json;
namespace fs = std::filesystem;

TEST(GoldenVariants, EveryFilePasses) {
  size_t files = 0;
  for (const auto& entry : fs::directory_iterator(std::string(VKFLUX_SOURCE_DIR) + "/tests/data/goldens")) {
    ++files;
    const Report report = run_file(test::device(), entry.path().string(), "");
    EXPECT_TRUE(report.passed()) << entry.path().filename() << ": " << report.error;
    for (const Check& c : report.checks)
      EXPECT_TRUE(c.passed) << entry.path().filename() << ", " << c.tensor << ": " << c.error << " "
                            << c.note;
  }
  EXPECT_GE(files, 15u);
}

TEST(GoldenOptions, AreReadAsTheyAreMeant) {
  const Json o = Json::parse(R"({"text": "0.5", "nan": "nan", "inf": "-Infinity", "null": null, "flag": 1,
                                 "word": "False", "whole": 4.0, "true": true, "list": [1, "2"], "one": 3,
                                 "bad": "x", "object": {}})");
  EXPECT_EQ(required<double>(o, "text"), 0.5);
  EXPECT_TRUE(std::isnan(required<double>(o, "nan")));
  EXPECT_EQ(required<double>(o, "inf"), -INFINITY);
  EXPECT_EQ(field(o, "null", 7.0), 7);
  EXPECT_EQ(field(o, "absent", int64_t{7}), 7);
  EXPECT_FALSE(optional_field<int64_t>(o, "null"));
  EXPECT_TRUE(required<bool>(o, "flag"));
  EXPECT_FALSE(required<bool>(o, "word"));
  EXPECT_EQ(required<int64_t>(o, "whole"), 4);
  EXPECT_EQ(required<int64_t>(o, "true"), 1);
  EXPECT_EQ(required<std::vector<int64_t>>(o, "list"), (std::vector<int64_t>{1, 2}));
  EXPECT_EQ(required<std::vector<double>>(o, "one"), std::vector<double>{3});
  EXPECT_THROW(required<double>(o, "bad"), Error);
  EXPECT_THROW(required<double>(o, "null"), Error);
  EXPECT_THROW(required<int64_t>(o, "inf"), Error);
  EXPECT_THROW(required<size_t>(Json{{"n", -1}}, "n"), Error);
  EXPECT_THROW(required<std::string>(o, "whole"), Error);
}

// A case's values decide, not only that it runs: each of these must fail.
TEST(GoldenCase, WrongValuesFail) {
  const test::TempFolder folder;
  const auto run = [&](const std::vector<io::TensorData>& tensors) {
    const std::string path = folder.file("case.safetensors");
    io::write_safetensors(path, tensors, {{"case", "ops_dense"}, {"config", R"({"silu": {}})"}});
    return run_file(test::device(), path, "").passed();
  };
  const auto tensor = [](const char* name, float value) { return io::tensor_data(name, {1}, {&value, 1}); };
  const float y = 1 / (1 + std::exp(-1.0f)), slope = y * (1 + 1 - y);
  const auto in = tensor("in.silu.x", 1), out = tensor("out.silu.y", y),
             one = tensor("in.loss_cotangent.silu", 1);
  EXPECT_TRUE(run({in, out}));
  EXPECT_FALSE(run({in, tensor("out.silu.y", y + 0.01f)}));
  EXPECT_TRUE(run({in, out, one, tensor("grad.in.silu.x", slope)}));
  EXPECT_FALSE(run({in, out, one, tensor("grad.in.silu.x", 0)}));
  // Nothing depends on this weight: zero is its gradient, and nothing else is.
  EXPECT_TRUE(run({in, out, one, tensor("w.silu.other", 2), tensor("grad.silu.other", 0)}));
  EXPECT_FALSE(run({in, out, one, tensor("w.silu.other", 2), tensor("grad.silu.other", 1)}));
  EXPECT_FALSE(run({in, out, one, tensor("grad.silu.unknown", 0)}));
  EXPECT_FALSE(run({in, tensor("out.silu.y", NAN)}));
  EXPECT_TRUE(run({tensor("in.silu.x", NAN), tensor("out.silu.y", NAN)}));
}

}  // namespace
}  // namespace vkflux::verify
