#include "train/metrics.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>

#include "model/io/file.h"

namespace vkflux::test {
namespace {

namespace fs = std::filesystem;

std::string folder() {
  const fs::path p = fs::temp_directory_path() / ("vkflux_metrics_" + std::to_string(getpid()));
  fs::remove_all(p);
  fs::create_directories(p);
  return p.string();
}

TEST(MetricsTest, Crc32cMatchesThePublishedCheckValue) {
  EXPECT_EQ(crc32c("123456789"), 0xE3069283u);
}

TEST(MetricsTest, JsonLinesAreCutBackOnResume) {
  const std::string path = folder() + "/m.jsonl";
  {
    auto sink = jsonl_sink(path, 0);
    for (int64_t step = 1; step <= 4; ++step)
      sink->write(step, {{"loss", 1.0 / static_cast<double>(step)}, {"bad", NAN}});
  }
  jsonl_sink(path, 2)->write(3, {{"loss", 9}});
  std::istringstream lines(io::read_file(path));
  std::vector<nlohmann::json> rows;
  for (std::string line; std::getline(lines, line);) rows.push_back(nlohmann::json::parse(line));
  ASSERT_EQ(rows.size(), 3u);
  EXPECT_EQ(rows[1]["step"], 2);
  EXPECT_TRUE(rows[1]["bad"].is_null());
  EXPECT_EQ(rows[2]["loss"], 9);
}

TEST(MetricsTest, EventFilesAreFramedAsTensorBoardReadsThem) {
  const std::string dir = folder();
  tensorboard_sink(dir, 0)->write(5, {{"loss", 0.25}});
  std::string bytes;
  for (const auto& e : fs::directory_iterator(dir)) bytes = io::read_file(e.path().string());
  const auto masked = [](std::string_view s) {
    const uint32_t c = crc32c(s);
    return (c >> 15 | c << 17) + 0xa282ead8u;
  };
  size_t at = 0, records = 0;
  while (at < bytes.size()) {
    uint64_t n = 0;
    uint32_t crc = 0;
    std::memcpy(&n, &bytes[at], 8);
    std::memcpy(&crc, &bytes[at + 8], 4);
    EXPECT_EQ(crc, masked(std::string_view(bytes).substr(at, 8)));
    ASSERT_LE(at + 16 + n, bytes.size());
    std::memcpy(&crc, &bytes[at + 12 + n], 4);
    EXPECT_EQ(crc, masked(std::string_view(bytes).substr(at + 12, n)));
    at += 16 + n;
    ++records;
  }
  EXPECT_EQ(records, 2u);
  EXPECT_NE(bytes.find("brain.Event:2"), std::string::npos);
  EXPECT_NE(bytes.find("loss"), std::string::npos);
}

TEST(MetricsTest, AFailingSinkDoesNotThrow) {
  const auto sink = jsonl_sink("/proc/nowhere/m.jsonl", 0);
  sink->write(1, {{"loss", 1}});
  sink->write(2, {{"loss", 1}});
}

}  // namespace
}  // namespace vkflux::test
