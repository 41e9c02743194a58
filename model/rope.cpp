#include "model/rope.h"

#include <fmt/format.h>

#include <cmath>
#include <numbers>

#include "vk/error.h"

namespace vkflux {

Tensor rope_table(Device& device, std::span<const float> ids, int64_t batch, const std::vector<int64_t>& axes,
                  double theta, std::span<const float> periods) {
  const size_t per_token = axes.size();
  if (per_token == 0 || batch <= 0 || ids.size() % (per_token * static_cast<size_t>(batch)) != 0) {
    throw Error(ErrorCode::invalid_argument, fmt::format("rope: {} position numbers for batch {} and {} axes",
                                                         ids.size(), batch, per_token));
  }
  std::vector<double> omega;
  std::vector<size_t> axis_of;
  for (size_t a = 0; a < per_token; ++a) {
    for (int64_t m = 0; m < axes[a] / 2; ++m) {
      omega.push_back(std::pow(theta, -2.0 * static_cast<double>(m) / static_cast<double>(axes[a])));
      axis_of.push_back(a);
    }
  }
  const size_t tokens = ids.size() / per_token, pairs = omega.size();
  std::vector<float> table(tokens * pairs * 2);
  for (size_t t = 0; t < tokens; ++t) {
    for (size_t p = 0; p < pairs; ++p) {
      double frequency = omega[p];
      if (!periods.empty()) {
        const double period = periods[t * per_token % periods.size() + axis_of[p]];
        if (period > 0) {
          const double turn = 2 * std::numbers::pi / period;
          frequency = std::round(frequency / turn) * turn;
        }
      }
      const double angle = static_cast<double>(ids[t * per_token + axis_of[p]]) * frequency;
      table[(t * pairs + p) * 2] = static_cast<float>(std::cos(angle));
      table[(t * pairs + p) * 2 + 1] = static_cast<float>(std::sin(angle));
    }
  }
  const Shape shape{batch, static_cast<int64_t>(tokens) / batch, static_cast<int64_t>(pairs), 2};
  return Tensor::from(device, std::span<const float>(table), shape);
}

}  // namespace vkflux
