// Times pieces of work on a device and puts them in relation to what the device can do at best.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "vk/device.h"

namespace vkflux::bench {

/// The best the device was seen to do: multiply-adds on registers, and streaming through memory.
struct Peaks {
  double gflops = 0, gbs = 0;
};

/// Work to be timed. prepare() does what isn't timed (recording a forward pass, say) and returns what is.
struct Case {
  std::string name, shape;
  std::function<std::function<void()>()> prepare;
};

struct Row {
  std::string name, shape;
  std::string kernels;  // by falling share of time
  int repeats = 0;
  double p10_ms = 0, median_ms = 0, p90_ms = 0;  // wall time from first dispatch to completion
  double flops = 0, bytes = 0;                   // what the kernels declare; 0 on a device without timestamps
  double gflops = 0, gbs = 0;                    // at the median
  double share = 0;  // time that the nearer of the two peaks would need, over the median; above 1 in caches
};

struct MeasureOptions {
  double seconds = 0.4;  // of repeats of a row
  int min_repeats = 5, max_repeats = 200;
};

Peaks measure_peaks(Device& device);
Row measure(Device& device, const Case& work, const Peaks& peaks, const MeasureOptions& options);

/// Value at a fraction of the sorted values, interpolated. values is not empty.
double percentile(std::vector<double> values, double fraction);

}  // namespace vkflux::bench
