// Sweeps as the command line writes them, and their tables.
#include <gtest/gtest.h>

#include "app/sweep/plan.h"
#include "app/sweep/seeds.h"
#include "app/sweep/table.h"
#include "vk/error.h"

namespace vkflux {
namespace {

std::vector<std::string> texts(const SweepList& list) {
  std::vector<std::string> out;
  for (const SweepValue& v : list.values) out.push_back(v.text);
  return out;
}

std::string refusal(const std::string& sweep) {
  try {
    parse_sweep(sweep);
  } catch (const Error& e) {
    EXPECT_TRUE(e.code() == ErrorCode::invalid_argument || e.code() == ErrorCode::format);
    return e.what();
  }
  return "";
}

TEST(Sweep, ReadsValuesByName) {
  EXPECT_EQ(texts(parse_sweep("quality-speed=0,0.25,1")), (std::vector<std::string>{"0", "0.25", "1"}));
  EXPECT_EQ(texts(parse_sweep("steps=3")), (std::vector<std::string>{"1", "2", "3"}));
  EXPECT_EQ(texts(parse_sweep("steps=3,")), (std::vector<std::string>{"3"}));
  EXPECT_EQ(texts(parse_sweep("cfg=[1, 2.5]")), (std::vector<std::string>{"1", "2.5"}));
  const SweepList sizes = parse_sweep("size=64,128x96");
  EXPECT_EQ(sizes.values[0].height, 64);
  EXPECT_EQ(sizes.values[1].width, 128);
  EXPECT_EQ(sizes.values[1].height, 96);
  const SweepList seeds = parse_sweep("seed=18446744073709551615,7");
  EXPECT_EQ(seeds.values[0].seed, 18446744073709551615ull);
  EXPECT_EQ(seeds.values[1].seed, 7u);
  const SweepList random = parse_sweep("seed=random:42:3");
  const std::vector<uint64_t> expected = parse_seeds("random:42:3");
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(random.values[i].seed, expected[i]);
}

TEST(Sweep, RefusesWhatCannotBe) {
  EXPECT_NE(refusal("steps").find("NAME=VALUE"), std::string::npos);
  EXPECT_NE(refusal("colour=1").find("quality-speed"), std::string::npos);
  EXPECT_NE(refusal("steps=2.5,3").find("2.5"), std::string::npos);
  EXPECT_NE(refusal("quality-speed=0,1.5").find("1.5"), std::string::npos);
  EXPECT_NE(refusal("cfg=a,b").find("--sweep cfg"), std::string::npos);
  EXPECT_NE(refusal("size=64x").find("64x"), std::string::npos);
  EXPECT_NE(refusal("steps=").find("no values"), std::string::npos);
  EXPECT_THROW(parse_sweep_mode("all"), Error);
}

using Rows = std::vector<std::vector<size_t>>;

Rows rows(const std::vector<SweepPoint>& points) {
  Rows out;
  for (const SweepPoint& p : points) {
    out.push_back({p.base});
    out.back().insert(out.back().end(), p.values.begin(), p.values.end());
  }
  return out;
}

TEST(Sweep, ModesArrangeThePictures) {
  const std::vector<SweepList> lists{parse_sweep("cfg=1,2"), parse_sweep("steps=3,4")};
  EXPECT_EQ(rows(sweep_points(lists, SweepMode::product, 1)),
            (Rows{{0, 0, 0}, {0, 0, 1}, {0, 1, 0}, {0, 1, 1}}));
  // Lengths with a common factor meet only half of the combinations, twice.
  EXPECT_EQ(rows(sweep_points(lists, SweepMode::combinations, 1)),
            (Rows{{0, 0, 0}, {0, 1, 1}, {0, 0, 0}, {0, 1, 1}}));
  EXPECT_EQ(rows(sweep_points({lists[0]}, SweepMode::product, 2)), (Rows{{0, 0}, {0, 1}, {1, 0}, {1, 1}}));
  // Five pictures: the first list's values last 3 and 2 pictures.
  EXPECT_EQ(rows(sweep_points({lists[0]}, SweepMode::clock, 5)),
            (Rows{{0, 0}, {1, 0}, {2, 0}, {3, 1}, {4, 1}}));
  // A list longer than the pictures is the clock.
  EXPECT_EQ(rows(sweep_points({parse_sweep("cfg=1,2,3")}, SweepMode::clock, 2)),
            (Rows{{0, 0}, {0, 1}, {1, 2}}));
  EXPECT_EQ(rows(sweep_points({}, SweepMode::product, 2)), (Rows{{0}, {1}}));
}

TEST(Sweep, LimitsPicturesAndLists) {
  EXPECT_THROW(sweep_points({parse_sweep("cfg=1,2"), parse_sweep("cfg=3,4")}, SweepMode::product, 1), Error);
  EXPECT_THROW(sweep_points({parse_sweep("steps=100"), parse_sweep("cfg=100")}, SweepMode::product, 1),
               Error);
  std::vector<SweepList> five;
  for (const char* s : {"steps=1,", "cfg=1,", "guidance=1,", "quality-speed=1,", "strength=1,"})
    five.push_back(parse_sweep(s));
  EXPECT_THROW(sweep_points(five, SweepMode::combinations, 1), Error);
  EXPECT_EQ(sweep_points(five, SweepMode::product, 1).size(), 1u);
}

TEST(Sweep, TablesQuoteAndAlign) {
  const std::vector<nlohmann::ordered_json> table{
      {{"file", "a.png"}, {"seed", 18446744073709551615ull}},
      {{"file", "b,\"c\".png"}, {"psnr", nullptr}, {"ssim", 0.5}}};
  EXPECT_EQ(csv_table(table),
            "file,seed,psnr,ssim\na.png,18446744073709551615,,\n\"b,\"\"c\"\".png\",,,0.5\n");
}

}  // namespace
}  // namespace vkflux
