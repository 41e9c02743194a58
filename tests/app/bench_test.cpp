#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "app/cli/bench_record.h"
#include "app/cli/cli.h"
#include "autograd/ops.h"
#include "bench/cases.h"
#include "tests/app/cli_fixture.h"
#include "tests/harness/gpu.h"
#include "vk/error.h"

namespace vkflux::cli {
namespace {

using test::vkflux;

class BenchCommand : public test::Cli {};

TEST_F(BenchCommand, JsonHasTheSchemaAndIsComparedWithItself) {
  const std::string one = "bench --suite ops --filter 'linear M64 N1024 K1024 f32' --seconds 0.01 --json";
  const test::Result r = vkflux(one + " --csv " + path("rows.csv") + " --plot " + path("roof.svg"));
  ASSERT_EQ(r.code, kOk);
  const auto j = nlohmann::json::parse(r.out);
  EXPECT_TRUE(j.at("device").is_string());
  ASSERT_EQ(j.at("rows").size(), 1u);
  const auto& row = j.at("rows")[0];
  EXPECT_EQ(row.at("name"), "linear");
  EXPECT_EQ(row.at("shape"), "M64 N1024 K1024");
  EXPECT_EQ(row.at("dtype"), "f32");
  EXPECT_NE(row.at("variant").get<std::string>().find("matmul"), std::string::npos);
  const double p10 = row.at("p10_ms"), median = row.at("ms"), p90 = row.at("p90_ms");
  EXPECT_GT(p10, 0);
  EXPECT_LE(p10, median);
  EXPECT_LE(median, p90);
  EXPECT_EQ(row.at("flops"), 2.0 * 64 * 1024 * 1024);
  EXPECT_NEAR(row.at("gflops"), row.at("flops").get<double>() / median * 1e-6, 1e-6);
  const double gflops = row.at("peaks").at("gflops"), gbs = row.at("peaks").at("gbs");
  EXPECT_GT(gflops, 0);
  EXPECT_GT(gbs, 0);
  EXPECT_LE(gflops, j.at("peaks").at("gflops"));
  EXPECT_LE(gbs, j.at("peaks").at("gbs"));
  EXPECT_NEAR(row.at("share"),
              std::max(row.at("gflops").get<double>() / gflops, row.at("gbs").get<double>() / gbs), 1e-9);
  EXPECT_LT(row.at("max_error"), row.at("tolerance"));

  std::ifstream csv(path("rows.csv")), svg(path("roof.svg"));
  std::string line;
  int lines = 0;
  while (std::getline(csv, line)) ++lines;
  EXPECT_EQ(lines, 2);
  ASSERT_TRUE(std::getline(svg, line));
  EXPECT_EQ(line.rfind("<svg ", 0), 0u);
  EXPECT_NE(line.find("<circle"), std::string::npos);

  const test::Result again = vkflux(one + " --compare " + file("old.json", r.out));
  ASSERT_EQ(again.code, kOk);
  const auto compared = nlohmann::json::parse(again.out).at("rows")[0];
  EXPECT_NEAR(compared.at("earlier_ms"), median, 1e-12);
  EXPECT_NEAR(compared.at("faster"), median / compared.at("ms").get<double>(), 1e-9);
}

TEST_F(BenchCommand, FilesThatAreNoRecordAreRefused) {
  const auto compare = [&](const std::string& name) {
    return vkflux("bench --suite ops --filter 'linear M64 N1024' --compare " + name, "2>&1");
  };
  EXPECT_EQ(compare(path("absent.json")).code, kBadFile);
  EXPECT_EQ(compare(file("text.json", "not json")).code, kBadFile);
  const char* wrong[] = {"[]",
                         "{}",
                         R"({"device":"x"})",
                         R"({"device":"x","rows":[1]})",
                         R"({"device":"x","rows":[{"name":"a","shape":"b","dtype":"f32"}]})",
                         R"({"device":"x","rows":[{"name":"a","shape":"b","dtype":"f32","ms":0}]})"};
  for (const char* text : wrong) EXPECT_THROW(EarlierRecord(file("wrong.json", text)), Error) << text;
  const test::Result r = compare(file("rows.json", R"({"device":"x","rows":[{"shape":"b"}]})"));
  EXPECT_EQ(r.code, kBadFile);
  EXPECT_NE(r.out.find("row 0 has no text \"name\""), std::string::npos) << r.out;
}

TEST_F(BenchCommand, ListNamesEverySuite) {
  const test::Result r = vkflux("bench --list --full");
  ASSERT_EQ(r.code, kOk);
  for (const char* name :
       {"linear M4608 N3072 K3072 bf16", "linear dw M512 N2048 K2048 f32", "attention bwd H1 N4608 D128 f32",
        "copy ", "adamw ", "conv3x3 dx", "group_norm+silu", "double block", "single block", "denoising step",
        "distillation update", "training step"})
    EXPECT_NE(r.out.find(name), std::string::npos) << name;
  const test::Result some = vkflux("bench --list --filter 'adamw,no such row,copy N'");
  EXPECT_EQ(std::count(some.out.begin(), some.out.end(), '\n'), 2) << some.out;
  EXPECT_EQ(vkflux("bench --filter 'no such row'").code, kUsage);
  EXPECT_EQ(vkflux("bench --suite none").code, kUsage);
}

/// The work of one case with its reference, at the size it is measured in.
bench::Instance instance_of(Device& device, const std::string& name) {
  std::vector<bench::Case> cases;
  bench::add_linear(cases, device);
  for (const bench::Case& c : cases) {
    if (c.name == name && c.shape == "M64 N1024 K1024") return c.make();
  }
  throw Error(ErrorCode::internal, "no case " + name);
}

TEST(BenchCheck, OneWrongElementIsFound) {
  Device& device = test::device();
  for (const char* name : {"linear", "linear dx", "linear dw"}) {
    const bench::Instance work = instance_of(device, name);
    const bench::Inputs results = work.prepare()();
    const std::vector<bench::Expected> expected = work.reference();
    EXPECT_LT(bench::worst_error(results, expected), 1e-5) << name;
    std::vector<float> values = results[0].to_host();
    const auto at = static_cast<size_t>(expected[0].index.back());
    const float right = values[at];
    for (const float wrong :
         {right + 0.01f * static_cast<float>(expected[0].scale), std::numeric_limits<float>::quiet_NaN()}) {
      values[at] = wrong;
      const Tensor damaged = Tensor::from(device, std::span<const float>(values), results[0].shape());
      EXPECT_GT(bench::worst_error({damaged}, expected), 5e-3) << name;
    }
    EXPECT_TRUE(std::isinf(bench::worst_error({}, expected)));
  }
}

TEST(BenchCheck, SlopesAlongADirectionAreCompared) {
  Device& device = test::device();
  const std::vector<float> x{1, 2, 3};
  bench::Expected e;
  e.direction = {1, -1, 2};
  e.value = {5};
  const Tensor t = Tensor::from(device, std::span<const float>(x), {3});
  EXPECT_NEAR(bench::worst_error({t}, {e}), 0, 1e-12);
  e.value = {4};
  EXPECT_NEAR(bench::worst_error({t}, {e}), 1, 1e-12);
  e.direction.pop_back();
  EXPECT_TRUE(std::isinf(bench::worst_error({t}, {e})));
}

TEST(BenchCheck, AWrongRowFailsTheRun) {
  Device& device = test::device();
  const Tensor x = bench::noise(device, {4, 4});
  bench::Case c;
  c.name = "doubled";
  c.make = [&] {
    return bench::forward_of(
        {x}, [](const bench::Inputs& i) { return op::affine(i[0], 2); },
        [&] {
          bench::Expected e;
          e.index = {3};
          e.value = {3.0 * x.to_host()[3]};  // not what the work does
          return std::vector<bench::Expected>{e};
        });
  };
  bench::MeasureOptions options;
  options.seconds = 0;
  options.min_repeats = 1;
  bench::PeakProbe probe(device);
  BenchRecord record{"d", "cpu", "", {1, 1}, {bench::measure(device, c, probe, options)}};
  EXPECT_FALSE(record.rows[0].right());
  EXPECT_EQ(verdict(record), kVerificationFailed);
  record.rows[0].max_error = 0;
  EXPECT_EQ(verdict(record), kOk);
}

TEST(BenchCheck, ADistillationUpdateAgreesWithTheHost) {
  std::vector<bench::Case> cases;
  bench::add_training(cases, test::device());
  for (const bench::Case& c : cases) {
    if (c.shape.find("miniature H3") != 0) continue;
    bench::MeasureOptions options;
    options.seconds = 0;
    options.min_repeats = 1;
    bench::PeakProbe probe(test::device());
    const bench::Row row = bench::measure(test::device(), c, probe, options);
    EXPECT_TRUE(row.checked);
    EXPECT_TRUE(row.right()) << row.max_error;
    return;
  }
  FAIL() << "no distillation update of the miniature";
}

}  // namespace
}  // namespace vkflux::cli
