// What `vkflux bench` writes and reads: rows as JSON and CSV, earlier records to compare with, roofline
// plots.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <tuple>
#include <vector>

#include "bench/measure.h"

namespace vkflux::cli {

struct BenchRecord {
  std::string device, device_class, driver;
  bench::Peaks peaks;
  std::vector<bench::Row> rows;
};

/// {device, class, driver, peaks: {gflops, gbs}, rows: [{name, shape, dtype, variant, ms, gflops, gbs, share,
/// peaks, ...}]}: the record's peaks are the best seen, those of a row were measured between its repeats.
nlohmann::ordered_json to_json(const BenchRecord& record);
std::string to_csv(const BenchRecord& record);
/// Exit status by correctness alone: times never fail a run. Every wrong row is logged.
int verdict(const BenchRecord& record);

/// Median milliseconds of an earlier record by (name, shape, dtype).
class EarlierRecord {
 public:
  /// Error io when the file can't be read, format (naming what is missing) when it is no record.
  explicit EarlierRecord(const std::string& path);
  const std::string& device() const { return device_; }
  /// 0 when the record has no such row.
  double ms(const bench::Row& row) const;

 private:
  std::string device_;
  std::map<std::tuple<std::string, std::string, std::string>, double> ms_;
};

/// An <svg> of both peaks as a roof over the rows, on logarithmic axes: GFLOP/s by operations per byte. Rows
/// without operations are left out.
std::string roofline_svg(const BenchRecord& record);

}  // namespace vkflux::cli
