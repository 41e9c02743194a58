#include "model/flux/rope.h"

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

std::vector<float> flux1_ids(const TokenLayout& tokens) {
  std::vector<float> ids(static_cast<size_t>(3 * tokens.text), 0.0f);
  const auto grid = [&](const ReferenceGrid& g) {
    for (int64_t r = 0; r < g.rows; ++r) {
      for (int64_t c = 0; c < g.columns; ++c) {
        ids.insert(ids.end(), {static_cast<float>(g.index), static_cast<float>(g.row + r),
                               static_cast<float>(g.column + c)});
      }
    }
  };
  grid({tokens.rows, tokens.columns, 0});
  for (const ReferenceGrid& g : tokens.references) grid(g);
  return ids;
}

std::vector<float> flux1_periods(const TokenLayout& tokens) {
  if (!tokens.wrap_rows && !tokens.wrap_columns) return {};
  std::vector<float> periods(static_cast<size_t>(3 * tokens.text), 0.0f);
  const auto grid = [&](int64_t rows, int64_t columns) {
    for (int64_t i = 0; i < rows * columns; ++i) {
      periods.insert(periods.end(), {0.0f, tokens.wrap_rows ? static_cast<float>(rows) : 0.0f,
                                     tokens.wrap_columns ? static_cast<float>(columns) : 0.0f});
    }
  };
  grid(tokens.rows, tokens.columns);
  for (const ReferenceGrid& g : tokens.references) grid(g.rows, g.columns);
  return periods;
}

std::vector<float> flux1_ids(int64_t text, int64_t rows, int64_t columns) {
  TokenLayout tokens;
  tokens.text = text;
  tokens.rows = rows;
  tokens.columns = columns;
  return flux1_ids(tokens);
}

}  // namespace vkflux
