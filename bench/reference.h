// Plain arithmetic on the host, in double precision sums: what the kernels' results are compared with.
#pragma once

#include <cmath>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "bench/measure.h"

namespace vkflux::bench {

using Values = std::vector<float>;

/// Runs fn(i) for 0 <= i < n on all cores.
void parallel_for(int64_t n, const std::function<void(int64_t)>& fn);

/// sum x[i stride_x] y[i stride_y]
double dot(const float* x, const float* y, int64_t n, int64_t stride_x = 1, int64_t stride_y = 1);

/// `most` numbers spread over 0 .. n - 1, the first and the last among them (all of them when n is smaller).
std::vector<int64_t> spread(int64_t n, int64_t most);

/// Collects what is expected of one result; scale is the root mean square of the values.
class Expectation {
 public:
  explicit Expectation(size_t result = 0) { e_.result = result; }
  void add(int64_t index, double value) {
    e_.index.push_back(index);
    e_.value.push_back(value);
  }
  Expected take();

 private:
  Expected e_;
};

double gelu_tanh(double x);
double gelu_tanh_slope(double x);
double silu(double x);
double silu_slope(double x);

/// Mean and 1 / sqrt(variance + eps) of a row.
struct Moments {
  double mean = 0, inverse = 0;
};
Moments moments(const float* x, int64_t n, double eps, int64_t stride = 1);

}  // namespace vkflux::bench
