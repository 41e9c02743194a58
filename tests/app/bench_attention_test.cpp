#include <gtest/gtest.h>

#include <array>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>

#include "bench/break_even.h"
#include "vk/error.h"

namespace vkflux::bench {
namespace {

using Kind = BreakEven::Kind;

TEST(BreakEvenPoint, ByOperationsAsTheFormulasSay) {
  // The reference's student against full attention: image tokens - landmarks = 3842 (specification 16).
  const AttentionSetting setting{1, 24, 77, 128};
  EXPECT_EQ(break_even_flops({{128, 256, 512, 3}, 0}, setting), 4177);
  const int64_t capped = break_even_flops({{128, 256, 512, 3}, 100}, setting);
  EXPECT_EQ(capped, 3942 + 1);
  EXPECT_LT(break_even_flops({{128, 64, 128, 2}, 0}, setting), 500);
  EXPECT_EQ(break_even_flops({{128, 65536, 131072, 3}, 0}, setting), 0);  // not below 2^26 tokens
}

TEST(BreakEvenPoint, ByTime) {
  const BreakEven inside = break_even_time({100, 200, 400}, {0.5, 0.5, 2});
  EXPECT_EQ(inside.kind, Kind::interpolated);
  EXPECT_NEAR(inside.image, 282.84, 0.01);
  const BreakEven outside = break_even_time({100, 200}, {0.25, 0.5});
  EXPECT_EQ(outside.kind, Kind::extrapolated);
  EXPECT_NEAR(outside.image, 400, 1e-6);
  const BreakEven early = break_even_time({100, 200}, {1.5, 3});
  EXPECT_EQ(early.kind, Kind::below);
  EXPECT_EQ(early.image, 100);
  EXPECT_EQ(break_even_time({100, 200, 400}, {2, 0.5, 2}).kind,
            Kind::interpolated);  // the last crossing counts
  EXPECT_EQ(break_even_time({100, 200}, {0.5, 0.4}).kind, Kind::none);
  EXPECT_EQ(break_even_time({100, 200}, {0.01, 0.0101}).kind, Kind::none);  // too far to tell
  EXPECT_EQ(break_even_time({100}, {0.5}).kind, Kind::none);
  EXPECT_EQ(break_even_time({}, {}).kind, Kind::none);
}

TEST(BreakEvenPoint, StudentsByText) {
  const HkrConfig c = parse_student("2:64:128", 64);
  EXPECT_EQ(c.layers, 2);
  EXPECT_EQ(c.feature_dim, 64);
  EXPECT_EQ(c.width(), 128);
  EXPECT_EQ(c.head_dim, 64);
  for (const char* bad : {"", "2:64", "2:64:128:1", "4:64:128", "2:65:128", "two:64:128", "2:64:128x"})
    EXPECT_THROW(parse_student(bad, 64), Error) << bad;
}

TEST(BenchAttention, ReportsStudentsAndBreakEven) {
  const std::string command = VKFLUX_PROGRAM
      " bench attention --student 2:32:32 --landmark-max 2 --tokens 32,16 --heads 1 --head-dim 8 --text 4"
      " --seconds 0.01 --json";
  FILE* pipe = popen(command.c_str(), "r");
  ASSERT_NE(pipe, nullptr);
  std::string out;
  std::array<char, 4096> buffer;
  for (size_t n; (n = fread(buffer.data(), 1, buffer.size(), pipe)) > 0;) out.append(buffer.data(), n);
  ASSERT_EQ(pclose(pipe), 0);
  const auto j = nlohmann::json::parse(out);
  ASSERT_EQ(j.at("full").size(), 2u);
  EXPECT_EQ(j.at("full")[0].at("flops"), 4.0 * 20 * 20 * 8);
  ASSERT_EQ(j.at("students").size(), 1u);
  const auto& student = j.at("students")[0];
  EXPECT_EQ(student.at("layers"), 2);
  ASSERT_EQ(student.at("rows").size(), 2u);
  for (const auto& row : student.at("rows")) {
    EXPECT_EQ(row.at("landmarks"), 6);
    EXPECT_GT(row.at("ms").get<double>(), 0);
    EXPECT_GT(row.at("gflops").get<double>(), 0);
  }
  EXPECT_TRUE(student.at("break_even").at("time").contains("kind"));
  EXPECT_GT(student.at("break_even").at("flops_image_tokens").get<int64_t>(), 32);
}

}  // namespace
}  // namespace vkflux::bench
