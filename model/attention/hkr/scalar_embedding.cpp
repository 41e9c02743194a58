#include "model/attention/hkr/scalar_embedding.h"

#include <algorithm>
#include <cmath>

namespace vkflux {

int64_t scalar_embedding_width(int64_t requested) {
  const int64_t d = std::max<int64_t>(2, requested);
  return d + d % 2;
}

std::vector<float> scalar_embedding_frequencies(int64_t requested) {
  const int64_t half = scalar_embedding_width(requested) / 2;
  std::vector<float> f(static_cast<size_t>(half));
  const double step = -std::log(10000.0) / static_cast<double>(std::max<int64_t>(1, half - 1));
  for (int64_t i = 0; i < half; ++i)
    f[static_cast<size_t>(i)] = static_cast<float>(std::exp(step * static_cast<double>(i)));
  return f;
}

std::vector<float> scalar_embedding(double x, int64_t requested) {
  const std::vector<float> f = scalar_embedding_frequencies(requested);
  std::vector<float> e(2 * f.size());
  for (size_t i = 0; i < f.size(); ++i) {
    const double angle = x * static_cast<double>(f[i]);
    e[i] = static_cast<float>(std::sin(angle));
    e[f.size() + i] = static_cast<float>(std::cos(angle));
  }
  return e;
}

}  // namespace vkflux
