// Time per kernel, from timestamps around every dispatch. Off, it costs one branch.
#pragma once

#include <cstdint>
#include <map>
#include <string>

namespace vkflux {

struct KernelTime {
  uint64_t calls = 0;
  double ms = 0, flops = 0, bytes = 0;
};

class Profiler {
 public:
  bool enabled() const { return enabled_; }
  /// Takes effect for what is recorded afterwards; needs timestamps on the device (else stays off).
  void enable(bool on) { enabled_ = on; }
  void add(const std::string& kernel, double ms, double flops, double bytes);
  const std::map<std::string, KernelTime>& table() const { return table_; }
  void clear() { table_.clear(); }
  /// One line per kernel, slowest first: calls, ms, share, GFLOP/s, GB/s.
  std::string report() const;

 private:
  bool enabled_ = false;
  std::map<std::string, KernelTime> table_;
};

}  // namespace vkflux
