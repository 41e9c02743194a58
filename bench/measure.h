// Times pieces of work on a device, checks what they computed against an independent reference, and puts the
// times in relation to what the device can do at best.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "autograd/tensor.h"

namespace vkflux::bench {

using Inputs = std::vector<Tensor>;

/// What the device does when nothing else limits it: multiply-adds on registers, and streaming through
/// memory.
struct Peaks {
  double gflops = 0, gbs = 0;
};

/// Measures the peaks again and again, in a few milliseconds each: on a machine shared with others they
/// change by half within seconds, so a row is only meant against the peaks around it.
class PeakProbe {
 public:
  explicit PeakProbe(Device& device);
  Peaks now();
  const Peaks& best() const { return best_; }  // of all measurements so far

 private:
  double ms_of_flops();
  Device& device_;
  Tensor lanes_, from_, to_;
  uint32_t rounds_ = 64;
  Peaks best_;
};

/// Some elements of one result, computed on the host in another way. Differences count in units of `scale`,
/// the typical size of the result's elements.
struct Expected {
  size_t result = 0;           // which of the results
  std::vector<int64_t> index;  // elements of it, flat
  std::vector<double> value;
  double scale = 1;
  // When given: value[0] is expected of the sum of result[i] direction[i]; index isn't used.
  std::vector<float> direction;
};
using Reference = std::function<std::vector<Expected>()>;

/// Work with its inputs on the device. prepare() does what isn't timed (recording a forward pass, say) and
/// returns what is, which gives the results that are checked.
struct Instance {
  std::function<std::function<Inputs()>()> prepare;
  Reference reference;      // null: nothing is checked
  int steps = 1;            // of one timed call; times and costs are divided by it
  double copied_bytes = 0;  // read and written by copies in one call: they declare no cost
};

/// Something to be measured. make() allocates: a case holds no memory before and after its measurement.
struct Case {
  std::string name, shape;
  std::string dtype = "f32";
  double tolerance = 2e-4;
  bool big = false;  // only with --full on a CPU
  std::function<Instance()> make;
};

struct Row {
  std::string name, shape, dtype;
  std::string variant;  // the kernels by falling share of time
  int repeats = 0;
  double p10_ms = 0, median_ms = 0, p90_ms = 0;  // wall time from first dispatch to completion
  double flops = 0, bytes = 0;                   // what the kernels declare
  double gflops = 0, gbs = 0;                    // at the median
  Peaks peaks;                                   // medians of what was measured between the repeats
  double share = 0;  // time that the nearer of these peaks would need, over the median; above 1 in caches
  bool checked = false;
  double max_error = 0, tolerance = 0;  // relative to the typical size of a result
  bool right() const { return !checked || max_error <= tolerance; }
};

struct MeasureOptions {
  double seconds = 0.4;  // of repeats of a row
  int min_repeats = 3, max_repeats = 200;
};

Row measure(Device& device, const Case& work, PeakProbe& probe, const MeasureOptions& options);

/// Largest difference in units of the scale; infinite when a value isn't finite or doesn't exist.
double worst_error(const Inputs& results, const std::vector<Expected>& expected);

/// Value at a fraction of the sorted values, interpolated. values is not empty.
double percentile(std::vector<double> values, double fraction);

}  // namespace vkflux::bench
