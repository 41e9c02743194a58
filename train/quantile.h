// Order statistics of metrics over layers.
#pragma once

#include <vector>

namespace vkflux {

/// By linear interpolation between order statistics, at position q (n - 1); q in [0, 1]. Values that aren't
/// finite are left out; NaN when none is left.
double quantile(const std::vector<double>& values, double q);

struct Quartiles {
  double min, p25, p50, p75, max;
};
Quartiles quartiles(const std::vector<double>& values);

}  // namespace vkflux
