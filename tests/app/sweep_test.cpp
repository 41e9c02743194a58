// The utilities behind --seeds, --prompts and --sweep.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <functional>

#include "app/sweep/combinations.h"
#include "app/sweep/mersenne_twister.h"
#include "app/sweep/number_list.h"
#include "app/sweep/prompt_list.h"
#include "app/sweep/seeds.h"
#include "model/text/characters.h"
#include "vk/error.h"

namespace vkflux::test {
namespace {

using Numbers = std::vector<double>;

ErrorCode code_of(const std::function<void()>& fn) {
  try {
    fn();
  } catch (const Error& e) {
    return e.code();
  }
  ADD_FAILURE() << "no error";
  return ErrorCode::internal;
}

TEST(SeedsTest, WordsAndBatchesAreThoseOfTheSpecification) {
  const std::array<uint32_t, 1> zero{0};
  MersenneTwister words(zero);
  EXPECT_EQ(words.next(), 3626764237u);
  EXPECT_EQ(words.next(), 1654615998u);
  EXPECT_EQ(words.next(), 3255389356u);

  const std::vector<std::pair<uint64_t, std::vector<uint64_t>>> table{
      {0, {7758176404715800194u, 15308084094301570617u, 8791662011684601223u, 9309829342914403545u}},
      {1, {14089154938208861744u, 2175216119781798972u, 8291646586825371460u, 1731403761479293229u}},
      {42, {2053695854357871005u, 5073395517033431291u, 10060236952204337488u, 7783083932390163561u}},
      {12345, {13515657874892102023u, 15774518201988393282u, 3572421395562983696u, 8046993897209325893u}},
      {uint64_t{1} << 32,
       {6480552028864852439u, 307624781732766930u, 18349438830298068874u, 2547214373103166632u}},
      {~uint64_t{0},
       {4589153898531806846u, 3910109989525945107u, 13597562788001749529u, 9820843617686605218u}}};
  for (const auto& [seed, want] : table)
    EXPECT_EQ(seed_batch(parse_base_seed(std::to_string(seed)), 4), want) << seed;
  EXPECT_EQ(seed_batch({7}, 6, 10, 100), (std::vector<uint64_t>{51, 29, 60, 93, 16, 19}));
}

TEST(SeedsTest, LongBatchesRefillTheStateAndStayInRange) {
  const std::vector<uint64_t> seeds = seed_batch({3}, 5000, 1000, 1000 + (uint64_t{1} << 40));
  EXPECT_EQ(seeds.size(), 5000u);
  for (uint64_t s : seeds) EXPECT_TRUE(s >= 1000 && s <= 1000 + (uint64_t{1} << 40));
  const std::vector<uint64_t> again = seed_batch({3}, 700, 1000, 1000 + (uint64_t{1} << 40));
  EXPECT_TRUE(std::equal(again.begin(), again.end(), seeds.begin()));
}

TEST(SeedsTest, CommandLineForms) {
  EXPECT_EQ(parse_seeds("7"), (std::vector<uint64_t>{7}));
  EXPECT_EQ(parse_seeds("1, 2,18446744073709551615"), (std::vector<uint64_t>{1, 2, ~uint64_t{0}}));
  EXPECT_EQ(parse_seeds("random:42:4"), seed_batch({42}, 4));
  EXPECT_EQ(parse_seeds("random:7:6:10:100"), seed_batch({7}, 6, 10, 100));
  EXPECT_EQ(parse_base_seed("-5"), BaseSeed{5});
  EXPECT_EQ(parse_base_seed("0"), BaseSeed{0});
  EXPECT_EQ(parse_base_seed("4294967296"), (BaseSeed{0, 1}));
  // Beyond 64 bits, as CPython's random.Random takes them.
  EXPECT_EQ(parse_base_seed("18446744073709551616"), (BaseSeed{0, 0, 1}));
  EXPECT_EQ(parse_seeds("random:18446744073709551616:2"),
            (std::vector<uint64_t>{13566935229855631011u, 8071626533056110595u}));
  for (const char* bad : {"", "x", "1,,2", "-1", "random", "random:1", "random:1:2:3", "random:1:0",
                          "random:1:9999999", "random:1e3:2", "random:1:2:9:3", "18446744073709551616"}) {
    EXPECT_EQ(code_of([&] { parse_seeds(bad); }), ErrorCode::invalid_argument) << bad;
  }
}

TEST(NumberListTest, DigitsCountAndEverythingElseLists) {
  EXPECT_EQ(number_list("3", "values"), (Numbers{1, 2, 3}));
  EXPECT_EQ(number_list("3.0", "values"), (Numbers{3}));
  EXPECT_EQ(number_list("3,", "values"), (Numbers{3}));
  EXPECT_EQ(number_list(" 1e-3,\t-2\n+.5 1_000 ", "values"), (Numbers{1e-3, -2, 0.5, 1000}));
  EXPECT_EQ(number_list("[1, \"2\", true]", "values"), (Numbers{1, 2, 1}));
  EXPECT_EQ(number_list("０３", "values"), (Numbers{1, 2, 3}));
  EXPECT_TRUE(number_list(" \t", "values").empty());
  EXPECT_TRUE(json_number_list(nullptr, "values").empty());
  EXPECT_EQ(json_number_list(io::Json::array({1, "2.5"}), "values"), (Numbers{1, 2.5}));
  for (const char* bad :
       {"a", "1;2", "0x10", "1__0", "_1", "1e", "--1", "[[1]]", "[null]", "99999999999", "²"})
    EXPECT_EQ(code_of([&] { number_list(bad, "values"); }), ErrorCode::invalid_argument) << bad;
  EXPECT_EQ(code_of([&] { number_list("[1,", "values"); }), ErrorCode::format);
  EXPECT_EQ(code_of([&] { json_number_list(5, "values"); }), ErrorCode::invalid_argument);
}

TEST(NumberListTest, NumbersAsPeopleWriteThem) {
  EXPECT_EQ(parse_number(" 1E3 "), 1000.0);
  EXPECT_EQ(parse_number("-Infinity"), -INFINITY);
  EXPECT_TRUE(std::isnan(*parse_number("NaN")));
  EXPECT_EQ(parse_number("1e999"), INFINITY);
  EXPECT_EQ(parse_number("1e-999"), 0.0);
  EXPECT_EQ(parse_number("5."), 5.0);
  for (const char* bad : {"", ".", "1 2", "1,5", "e3", "infx", "0x1p3", "\xff"})
    EXPECT_FALSE(parse_number(bad)) << bad;
}

TEST(CombinationsTest, ClockedValues) {
  const Numbers v = clocked_values(100, {1, 2, 3});
  EXPECT_EQ(std::count(v.begin(), v.end(), 1.0), 34);
  EXPECT_EQ(std::count(v.begin(), v.end(), 2.0), 33);
  EXPECT_EQ(std::count(v.begin(), v.end(), 3.0), 33);
  EXPECT_TRUE(std::is_sorted(v.begin(), v.end()));
  EXPECT_EQ(clock_or_count({}, {7, 8}), (Numbers{1, 2}));
  EXPECT_EQ(code_of([] { clocked_values(1, {1, 2}); }), ErrorCode::invalid_argument);
  EXPECT_EQ(code_of([] { clocked_values(0, {1}); }), ErrorCode::invalid_argument);
  EXPECT_EQ(code_of([] { clocked_values(1, {}); }), ErrorCode::invalid_argument);
}

TEST(CombinationsTest, ModularRepeatsWhereCartesianCoversAll) {
  const std::vector<Numbers> lists{{1, 2}, {3, 4}};
  EXPECT_EQ(combinations(lists), (std::vector<Numbers>{{1, 2, 1, 2}, {3, 4, 3, 4}}));
  EXPECT_EQ(combinations(lists, CombinationMode::cartesian),
            (std::vector<Numbers>{{1, 1, 2, 2}, {3, 4, 3, 4}}));
  EXPECT_EQ(combinations({{1, 2, 3}, {4, 5}}),
            (std::vector<Numbers>{{1, 2, 3, 1, 2, 3}, {4, 5, 4, 5, 4, 5}}));
  EXPECT_EQ(optional_combinations({{1, 2}, {}, {3}}), (std::vector<Numbers>{{1, 2}, {}, {3, 3}}));
  EXPECT_EQ(code_of([] { optional_combinations({{}, {1}}); }), ErrorCode::invalid_argument);
  EXPECT_EQ(code_of([] { combinations({Numbers(2000), Numbers(2000)}); }), ErrorCode::invalid_argument);
}

TEST(PromptListTest, ErrorsNameThePath) {
  const std::string path =
      (std::filesystem::temp_directory_path() / ("vkflux_prompts_" + std::to_string(getpid()) + ".json"))
          .string();
  std::ofstream(path) << R"(["a fox", "é\n"])";
  EXPECT_EQ(load_prompt_list("  " + path + "\n"), (std::vector<std::string>{"a fox", "é\n"}));
  for (const char* bad : {"{}", "[1]", "[\"a\", null]", "", "[\"a\""}) {
    std::ofstream(path) << bad;
    try {
      load_prompt_list(path);
      ADD_FAILURE() << bad;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::format) << bad;
      EXPECT_NE(std::string(e.what()).find(path), std::string::npos) << e.what();
    }
  }
  std::filesystem::remove(path);
  EXPECT_EQ(code_of([&] { load_prompt_list(path); }), ErrorCode::io);
  EXPECT_EQ(code_of([] { load_prompt_list(" "); }), ErrorCode::invalid_argument);
}

}  // namespace
}  // namespace vkflux::test
