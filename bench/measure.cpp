#include "bench/measure.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <map>

#include "vk/interrupt.h"

namespace vkflux::bench {
namespace {

// A first run that takes longer than this is dominated by its kernels, not by compiling them.
constexpr double kLongMs = 1500;
constexpr double kBetweenProbesMs = 100;

double now_ms() {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

double time_ms(Device& device, const Instance& work, Inputs* results = nullptr) {
  const std::function<Inputs()> timed = work.prepare();
  device.stream().sync();
  const double start = now_ms();
  Inputs out = timed();
  device.stream().sync();
  const double took = now_ms() - start;
  if (results) *results = std::move(out);
  return took;
}

/// The names of the kernels that take at least a tenth of the time; empty on a device without timestamps.
std::string kernels_by_time(const std::map<std::string, KernelTime>& table) {
  std::vector<std::pair<double, std::string>> order;
  double total = 0;
  for (const auto& [kernel, t] : table) {
    order.emplace_back(-t.ms, kernel);
    total += t.ms;
  }
  std::sort(order.begin(), order.end());
  std::string out;
  for (const auto& [ms, kernel] : order) {
    if (-ms >= 0.1 * total) out += (out.empty() ? "" : " + ") + kernel;
  }
  return out;
}

/// Runs the work once under the profiler: the kernels used, and what they declare to cost.
double profile(Device& device, const Instance& work, Row& row, Inputs* results) {
  const std::function<Inputs()> timed = work.prepare();
  device.stream().sync();
  device.profiler().clear();
  device.profiler().enable(true);
  const StreamCounters before = device.stream().counters();
  const double start = now_ms();
  Inputs out = timed();
  device.stream().sync();
  const double took = now_ms() - start;
  device.profiler().enable(false);
  const StreamCounters& after = device.stream().counters();
  row.flops = (after.flops - before.flops) / work.steps;
  row.bytes = (after.bytes - before.bytes + work.copied_bytes) / work.steps;
  row.variant = kernels_by_time(device.profiler().table());
  if (row.variant.empty() && work.copied_bytes > 0) row.variant = "copy of the driver";
  device.profiler().clear();
  if (results) *results = std::move(out);
  return took;
}

}  // namespace

double percentile(std::vector<double> values, double fraction) {
  std::sort(values.begin(), values.end());
  const double at = fraction * static_cast<double>(values.size() - 1);
  const auto low = static_cast<size_t>(at);
  const size_t high = std::min(low + 1, values.size() - 1);
  return std::lerp(values[low], values[high], at - static_cast<double>(low));
}

double worst_error(const Inputs& results, const std::vector<Expected>& expected) {
  constexpr double kInfinite = std::numeric_limits<double>::infinity();
  double worst = 0;
  for (const Expected& e : expected) {
    if (e.result >= results.size() || !results[e.result].defined()) return kInfinite;
    const std::vector<float> got = results[e.result].to_host();
    if (!e.direction.empty()) {
      double sum = 0;
      if (got.size() != e.direction.size()) return kInfinite;
      for (size_t i = 0; i < got.size(); ++i) sum += static_cast<double>(got[i]) * e.direction[i];
      if (!std::isfinite(sum)) return kInfinite;
      worst = std::max(worst, std::fabs(sum - e.value[0]) / e.scale);
    }
    for (size_t i = 0; i < e.index.size(); ++i) {
      const auto at = static_cast<size_t>(e.index[i]);
      if (at >= got.size() || !std::isfinite(got[at])) return kInfinite;
      worst = std::max(worst, std::fabs(static_cast<double>(got[at]) - e.value[i]) / e.scale);
    }
  }
  return worst;
}

Row measure(Device& device, const Case& work, PeakProbe& probe, const MeasureOptions& options) {
  Row row;
  row.name = work.name, row.shape = work.shape, row.dtype = work.dtype, row.tolerance = work.tolerance;
  const Instance instance = work.make();
  Inputs results;
  // The first run compiles the kernels; when that is what it spent its time on, its profile says nothing.
  if (profile(device, instance, row, &results) < kLongMs) profile(device, instance, row, nullptr);
  if (instance.reference) {
    row.checked = true;
    row.max_error = worst_error(results, instance.reference());
  }
  results.clear();
  std::vector<double> ms, gflops, gbs;
  double total = 0, probed = -kBetweenProbesMs;
  const auto measure_peaks = [&] {
    const Peaks peaks = probe.now();
    gflops.push_back(peaks.gflops), gbs.push_back(peaks.gbs);
    probed = total;
  };
  while (static_cast<int>(ms.size()) < options.max_repeats &&
         (static_cast<int>(ms.size()) < options.min_repeats || total < options.seconds * 1e3)) {
    check_interrupted("the measurement");
    if (total - probed >= kBetweenProbesMs) measure_peaks();
    const double took = time_ms(device, instance);
    ms.push_back(took / instance.steps);
    total += took;
  }
  measure_peaks();
  row.repeats = static_cast<int>(ms.size());
  row.p10_ms = percentile(ms, 0.1);
  row.median_ms = percentile(ms, 0.5);
  row.p90_ms = percentile(ms, 0.9);
  row.gflops = row.flops / row.median_ms * 1e-6;
  row.gbs = row.bytes / row.median_ms * 1e-6;
  row.peaks = {percentile(gflops, 0.5), percentile(gbs, 0.5)};
  row.share = std::max(row.gflops / row.peaks.gflops, row.gbs / row.peaks.gbs);
  return row;
}

}  // namespace vkflux::bench
