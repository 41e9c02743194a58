// From how many tokens on a student of attention is cheaper than full attention.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "bench/measure.h"
#include "model/attention/hkr/hkr.h"

namespace vkflux::bench {

/// A student to be compared: its networks and the cap on its image landmarks (0: none).
struct StudentSetup {
  HkrConfig config;
  int64_t landmark_max = 0;

  HkrOptions options() const;
  std::string str() const;  // "3 layers F256 W512, no cap"
};
/// "layers:feature_dim:width", e.g. "2:64:128". Errors: invalid_argument.
HkrConfig parse_student(const std::string& text, int64_t head_dim);

/// What surrounds the image tokens.
struct AttentionSetting {
  int64_t batch = 1, heads = 4, text = 77, head_dim = 128;
  AttentionShape shape(int64_t image) const { return {batch, heads, text, image, head_dim}; }
};

/// One attention measured: what its formulas say it costs, what its kernels say they moved, and the time: the
/// tenth percentile, which other processes disturb least, and the median.
struct Measured {
  double flops = 0, bytes = 0, moved = 0, ms = 0, median_ms = 0;
  double gflops() const { return ms > 0 ? flops / ms * 1e-6 : 0; }
};
Measured measure_full(Device& device, const AttentionSetting& s, int64_t image, PeakProbe& probe,
                      const MeasureOptions& options);
Measured measure_student(Device& device, const StudentSetup& student, const AttentionSetting& s,
                         int64_t image, PeakProbe& probe, const MeasureOptions& options);

/// Image tokens from which the student needs fewer operations; 0 when it never does below 2^26.
int64_t break_even_flops(const StudentSetup& student, const AttentionSetting& s);

/// Where full attention's time over the student's crosses 1.
struct BreakEven {
  enum class Kind { interpolated, extrapolated, below, none };
  Kind kind = Kind::none;  // below: the student is faster at all counts; none: no crossing can be told
  double image = 0;        // tokens; the least count measured for `below`
};
const char* name(BreakEven::Kind kind);
/// ratios[i] = full time / student time at image[i] tokens, ascending. Between two counts, and beyond the
/// last by the line through the last two, logarithms are interpolated. Beyond 64 times the last count: none.
BreakEven break_even_time(const std::vector<int64_t>& image, const std::vector<double>& ratios);

}  // namespace vkflux::bench
