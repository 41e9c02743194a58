#include "bench/reference.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <numbers>
#include <thread>

namespace vkflux::bench {
namespace {

constexpr double kGeluA = 0.044715;
const double kGeluB = std::sqrt(2 / std::numbers::pi);

// Sums of short runs in float, in lanes so that compilers can use vectors; the runs are added in double.
double dot_dense(const float* x, const float* y, int64_t n) {
  constexpr int64_t kLanes = 16, kRun = 256;
  double sum = 0;
  int64_t i = 0;
  while (i + kLanes <= n) {
    std::array<float, kLanes> lane{};
    const int64_t end = std::min(n - kLanes, i + kRun - kLanes);
    for (; i <= end; i += kLanes) {
      for (int64_t l = 0; l < kLanes; ++l) lane[static_cast<size_t>(l)] += x[i + l] * y[i + l];
    }
    for (const float v : lane) sum += static_cast<double>(v);
  }
  for (; i < n; ++i) sum += static_cast<double>(x[i]) * y[i];
  return sum;
}

}  // namespace

void parallel_for(int64_t n, const std::function<void(int64_t)>& fn) {
  const auto threads = static_cast<int64_t>(std::max(1u, std::thread::hardware_concurrency()));
  std::atomic<int64_t> next{0};
  const auto work = [&] {
    for (int64_t i = next++; i < n; i = next++) fn(i);
  };
  std::vector<std::thread> pool;
  for (int64_t t = 1; t < std::min(threads, n); ++t) pool.emplace_back(work);
  work();
  for (std::thread& t : pool) t.join();
}

double dot(const float* x, const float* y, int64_t n, int64_t stride_x, int64_t stride_y) {
  if (stride_x == 1 && stride_y == 1) return dot_dense(x, y, n);
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += static_cast<double>(x[i * stride_x]) * y[i * stride_y];
  return sum;
}

std::vector<int64_t> spread(int64_t n, int64_t most) {
  std::vector<int64_t> out;
  const int64_t count = std::min(n, most);
  for (int64_t i = 0; i < count; ++i) out.push_back(count == 1 ? 0 : i * (n - 1) / (count - 1));
  return out;
}

Expected Expectation::take() {
  double power = 0;
  for (const double v : e_.value) power += v * v;
  if (!e_.value.empty()) e_.scale = std::sqrt(power / static_cast<double>(e_.value.size()));
  e_.scale = std::max(e_.scale, 1e-30);
  return std::move(e_);
}

double gelu_tanh(double x) {
  return 0.5 * x * (1 + std::tanh(kGeluB * (x + kGeluA * x * x * x)));
}

double gelu_tanh_slope(double x) {
  const double t = std::tanh(kGeluB * (x + kGeluA * x * x * x));
  return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * kGeluB * (1 + 3 * kGeluA * x * x);
}

double silu(double x) {
  return x / (1 + std::exp(-x));
}

double silu_slope(double x) {
  const double s = 1 / (1 + std::exp(-x));
  return s * (1 + x * (1 - s));
}

Moments moments(const float* x, int64_t n, double eps, int64_t stride) {
  double sum = 0, power = 0;
  for (int64_t i = 0; i < n; ++i) sum += x[i * stride];
  const double mean = sum / static_cast<double>(n);
  for (int64_t i = 0; i < n; ++i) {
    const double d = x[i * stride] - mean;
    power += d * d;
  }
  return {mean, 1 / std::sqrt(power / static_cast<double>(n) + eps)};
}

}  // namespace vkflux::bench
