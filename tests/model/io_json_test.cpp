// JSON: what is refused, with the reason and the place.
#include "model/io/json.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/harness/expect_error.h"
#include "tests/harness/temp_folder.h"

namespace vkflux::io {
namespace {

using test::expect_error;

TEST(IoJson, Parses) {
  const Json j = parse_json(R"({"b":1,"a":[true,null,-2.5,"x"]})", "test");
  EXPECT_EQ(j["a"][2], -2.5);
  EXPECT_EQ(j.begin().key(), "b");  // in the file's order
}

TEST(IoJson, RefusesBadText) {
  const std::string deep(100, '['), wide = R"({"a":1,"b":{"x":0,"x":1}})";
  expect_error(ErrorCode::format, {"f.json", "nested too deeply"}, [&] { parse_json(deep, "f.json"); });
  expect_error(ErrorCode::format, {"f.json", "\"x\" appears twice"}, [&] { parse_json(wide, "f.json"); });
  expect_error(ErrorCode::format, {"\"x\" appears twice"}, [&] { parse_sorted_json(wide, "f.json"); });
  expect_error(ErrorCode::format, {"f.json", "bad JSON", "line 2"},
               [&] { parse_json("{\n\"a\":}", "f.json"); });
  for (const char* text :
       {"", "{", "[1,]", "{\"a\":1,}", "nul", "{} {}", "\"\xff\"", "[1e999]", "{1:2}", "// x\n1"}) {
    expect_error(ErrorCode::format, {"f.json"}, [&] { parse_json(text, "f.json"); });
  }
}

TEST(IoJson, NumbersThatPythonWrites) {
  const Json j = parse_json(
      R"({"a": NaN, "b": [Infinity, -Infinity, null], "NaN": "NaN \\" Infinity", "c": {"d":-Infinity}})",
      "test");
  EXPECT_TRUE(std::isnan(j["a"].get<double>()));
  EXPECT_EQ(j["b"][0], INFINITY);
  EXPECT_EQ(j["b"][1], -INFINITY);
  EXPECT_TRUE(j["b"][2].is_null());
  EXPECT_EQ(j["NaN"], "NaN \" Infinity");
  EXPECT_EQ(j["c"]["d"], -INFINITY);
  EXPECT_EQ(parse_sorted_json("[Infinity]", "test")[0], INFINITY);
  for (const char* text :
       {"[NaNa]", "[+Infinity]", "[-NaN]", "{NaN: 1}", "[nan]", "[Infinity Infinity]", "[\"NaN]"})
    expect_error(ErrorCode::format, {"f.json"}, [&] { parse_json(text, "f.json"); });
}

TEST(IoJson, WholeNumbersBeyond64Bits) {
  const char* text = "[18446744073709551616, 1e20, 18446744073709551615, -9223372036854775809]";
  const Json rounded = parse_json(text, "test"), exact = parse_json(text, "test", WholeNumbers::keep_digits);
  EXPECT_EQ(rounded[0], 0x1p64);
  EXPECT_EQ(exact[0], "18446744073709551616");
  EXPECT_EQ(exact[1], 1e20);
  EXPECT_EQ(exact[2], UINT64_MAX);
  EXPECT_EQ(exact[3], "-9223372036854775809");
}

TEST(IoJson, FileOverTheLimit) {
  const test::TempFolder folder;
  atomic_write(folder.file("x.json"), "[1, 2, 3]");
  EXPECT_EQ(read_json(folder.file("x.json")).size(), 3u);
  expect_error(ErrorCode::format, {"x.json", "at most 4"}, [&] { read_json(folder.file("x.json"), 4); });
}

TEST(IoJson, GetsOnlyTheRightType) {
  const Json j = parse_json(
      R"({"i":-3,"f":1.5,"b":true,"s":"x","big":4294967296,"huge":18446744073709551615,"n":null,"v":[1,2]})",
      "test");
  EXPECT_EQ(get<int>(j, "i", "c.json"), -3);
  EXPECT_EQ(get<float>(j, "i", "c.json"), -3.0f);
  EXPECT_EQ(get<std::string>(j, "s", "c.json"), "x");
  EXPECT_EQ(get<uint64_t>(j, "huge", "c.json"), UINT64_MAX);
  EXPECT_EQ(get<std::vector<int>>(j, "v", "c.json"), (std::vector<int>{1, 2}));
  EXPECT_TRUE(get<bool>(j, "b", "c.json"));
  expect_error(ErrorCode::format, {"c.json", "\"none\" is missing"}, [&] { get<int>(j, "none", "c.json"); });
  expect_error(ErrorCode::format, {"c.json", "\"f\"", "1.5"}, [&] { get<int>(j, "f", "c.json"); });
  expect_error(ErrorCode::format, {"\"i\"", "-3"}, [&] { get<uint32_t>(j, "i", "c.json"); });
  expect_error(ErrorCode::format, {"\"big\""}, [&] { get<int32_t>(j, "big", "c.json"); });
  expect_error(ErrorCode::format, {"\"huge\""}, [&] { get<int64_t>(j, "huge", "c.json"); });
  expect_error(ErrorCode::format, {"\"b\"", "true"}, [&] { get<int>(j, "b", "c.json"); });
  expect_error(ErrorCode::format, {"\"i\""}, [&] { get<bool>(j, "i", "c.json"); });
  expect_error(ErrorCode::format, {"\"s\""}, [&] { get<double>(j, "s", "c.json"); });
  expect_error(ErrorCode::format, {"is missing"}, [&] { get<int>(Json::array(), "i", "c.json"); });
  EXPECT_EQ(get_or<int>(j, "n", 7, "c.json"), 7);
  EXPECT_EQ(get_or<int>(j, "none", 7, "c.json"), 7);
  expect_error(ErrorCode::format, {"\"s\""}, [&] { get_or<int>(j, "s", 7, "c.json"); });
}

}  // namespace
}  // namespace vkflux::io
