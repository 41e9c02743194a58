#include "bench/measure.h"

#include <algorithm>
#include <chrono>
#include <cmath>

namespace vkflux::bench {
namespace {

double now_ms() {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

double time_ms(Device& device, const std::function<std::function<void()>()>& prepare) {
  const std::function<void()> timed = prepare();
  device.stream().sync();
  const double start = now_ms();
  timed();
  device.stream().sync();
  return now_ms() - start;
}

/// Runs `work` once under the profiler: what its kernels declare, and the names of those that take at least a
/// tenth of the time. All empty on a device without timestamps.
void profile(Device& device, const Case& work, Row& row) {
  const std::function<void()> timed = work.prepare();
  device.stream().sync();
  device.profiler().clear();
  device.profiler().enable(true);
  timed();
  device.stream().sync();
  device.profiler().enable(false);
  std::vector<std::pair<double, std::string>> order;
  double total = 0;
  for (const auto& [kernel, t] : device.profiler().table()) {
    order.emplace_back(-t.ms, kernel);
    total += t.ms;
    row.flops += t.flops;
    row.bytes += t.bytes;
  }
  device.profiler().clear();
  std::sort(order.begin(), order.end());
  for (const auto& [ms, kernel] : order) {
    if (-ms >= 0.1 * total) row.kernels += (row.kernels.empty() ? "" : " + ") + kernel;
  }
}

}  // namespace

double percentile(std::vector<double> values, double fraction) {
  std::sort(values.begin(), values.end());
  const double at = fraction * static_cast<double>(values.size() - 1);
  const auto low = static_cast<size_t>(at);
  const size_t high = std::min(low + 1, values.size() - 1);
  return std::lerp(values[low], values[high], at - static_cast<double>(low));
}

Row measure(Device& device, const Case& work, const Peaks& peaks, const MeasureOptions& options) {
  Row row{work.name, work.shape, {}, 0, 0, 0, 0, 0, 0, 0, 0, 0};
  time_ms(device, work.prepare);  // compiles the kernels
  profile(device, work, row);
  std::vector<double> ms;
  double total = 0;
  while (static_cast<int>(ms.size()) < options.max_repeats &&
         (static_cast<int>(ms.size()) < options.min_repeats || total < options.seconds * 1e3)) {
    ms.push_back(time_ms(device, work.prepare));
    total += ms.back();
  }
  row.repeats = static_cast<int>(ms.size());
  row.p10_ms = percentile(ms, 0.1);
  row.median_ms = percentile(ms, 0.5);
  row.p90_ms = percentile(ms, 0.9);
  row.gflops = row.flops / row.median_ms * 1e-6;
  row.gbs = row.bytes / row.median_ms * 1e-6;
  row.share = std::max(row.gflops / peaks.gflops, row.gbs / peaks.gbs);
  return row;
}

}  // namespace vkflux::bench
