#include "vk/profiler.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>
#include <vector>

namespace vkflux {

void Profiler::add(const std::string& kernel, double ms, double flops, double bytes) {
  KernelTime& t = table_[kernel];
  ++t.calls;
  t.ms += ms;
  t.flops += flops;
  t.bytes += bytes;
}

std::string Profiler::report() const {
  std::vector<std::pair<std::string, KernelTime>> rows(table_.begin(), table_.end());
  std::stable_sort(rows.begin(), rows.end(),
                   [](const auto& a, const auto& b) { return a.second.ms > b.second.ms; });
  double total = 0;
  for (const auto& [k, t] : rows) total += t.ms;
  std::string out =
      fmt::format("{:<36}{:>8}{:>11}{:>8}{:>10}{:>9}\n", "kernel", "calls", "ms", "share", "GFLOP/s", "GB/s");
  for (const auto& [k, t] : rows) {
    const double s = std::max(t.ms, 1e-9) * 1e6;
    out += fmt::format("{:<36}{:>8}{:>11.2f}{:>7.1f}%{:>10.2f}{:>9.2f}\n", k, t.calls, t.ms,
                       100 * t.ms / std::max(total, 1e-9), t.flops / s, t.bytes / s);
  }
  return out;
}

}  // namespace vkflux
