#include "train/quantile.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace vkflux {
namespace {

std::vector<double> sorted_finite(const std::vector<double>& values) {
  std::vector<double> out;
  std::copy_if(values.begin(), values.end(), std::back_inserter(out),
               [](double v) { return std::isfinite(v); });
  std::sort(out.begin(), out.end());
  return out;
}

double at_quantile(const std::vector<double>& sorted, double q) {
  if (sorted.empty()) return std::numeric_limits<double>::quiet_NaN();
  const double position = std::clamp(q, 0.0, 1.0) * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(position);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  return std::lerp(sorted[below], sorted[above], position - static_cast<double>(below));
}

}  // namespace

double quantile(const std::vector<double>& values, double q) {
  return at_quantile(sorted_finite(values), q);
}

Quartiles quartiles(const std::vector<double>& values) {
  const std::vector<double> sorted = sorted_finite(values);
  return {at_quantile(sorted, 0), at_quantile(sorted, 0.25), at_quantile(sorted, 0.5),
          at_quantile(sorted, 0.75), at_quantile(sorted, 1)};
}

}  // namespace vkflux
