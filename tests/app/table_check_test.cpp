// Rows of golden tables can fail: a comparison that accepts everything would prove nothing.
#include "app/verify/table_check.h"

#include <gtest/gtest.h>

#include <cmath>

#include "vk/error.h"

namespace vkflux::verify {
namespace {

using Json = nlohmann::json;

TEST(TableCheckTest, ValuesTypesAndShapesMustAgree) {
  EXPECT_TRUE(compare_values("a", 1.0000001, 1.0, 1e-6).passed);
  EXPECT_FALSE(compare_values("a", 1.00001, 1.0, 1e-6).passed);
  EXPECT_FALSE(compare_values("a", 2, 3, 1).passed);  // whole numbers are exact
  EXPECT_TRUE(compare_values("a", NAN, "nan", 0).passed);
  EXPECT_FALSE(compare_values("a", NAN, 1.0, 1).passed);
  EXPECT_FALSE(compare_values("a", 1.0, "nan", 1).passed);
  EXPECT_FALSE(compare_values("a", true, 1, 0).passed);
  EXPECT_FALSE(compare_values("a", nullptr, 0, 0).passed);
  EXPECT_FALSE(compare_values("a", Json::array({1, 2}), Json::array({1}), 0).passed);
  EXPECT_FALSE(compare_values("a", Json{{"x", 1}, {"y", 2}}, Json{{"x", 1}}, 0).passed);
  const Check c = compare_values("a", Json{{"x", Json::array({1, 3})}}, Json{{"x", Json::array({1, 2})}}, 0);
  EXPECT_FALSE(c.passed);
  EXPECT_NE(c.note.find(".x[1]"), std::string::npos) << c.note;
}

TEST(TableCheckTest, ErrorsMustBeOfTheRowsKind) {
  const Json fails{{"error", {{"type", "ValueError"}}}}, absent{{"error", {{"type", "FileNotFoundError"}}}};
  const auto throws = [](ErrorCode code) { return [code]() -> Json { throw Error(code, "no"); }; };
  EXPECT_TRUE(check_row("a", fails, throws(ErrorCode::invalid_argument)).passed);
  EXPECT_FALSE(check_row("a", fails, throws(ErrorCode::io)).passed);
  EXPECT_TRUE(check_row("a", absent, throws(ErrorCode::io)).passed);
  EXPECT_FALSE(check_row("a", fails, [] { return Json(1); }).passed);
  EXPECT_FALSE(check_row("a", Json{{"result", 1}}, throws(ErrorCode::format)).passed);
  EXPECT_TRUE(check_row("a", Json{{"result", 1}}, [] { return Json(1); }).passed);
}

}  // namespace
}  // namespace vkflux::verify
