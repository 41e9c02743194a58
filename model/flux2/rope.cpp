#include "model/flux2/rope.h"

namespace vkflux {

std::vector<float> flux2_ids(const TokenLayout& tokens) {
  std::vector<float> ids;
  for (int64_t k = 0; k < tokens.text; ++k) ids.insert(ids.end(), {0, 0, 0, static_cast<float>(k)});
  const auto grid = [&](const ReferenceGrid& g) {
    for (int64_t r = 0; r < g.rows; ++r) {
      for (int64_t c = 0; c < g.columns; ++c) {
        ids.insert(ids.end(), {static_cast<float>(g.index), static_cast<float>(g.row + r),
                               static_cast<float>(g.column + c), 0});
      }
    }
  };
  grid({tokens.rows, tokens.columns, 0});
  for (const ReferenceGrid& g : tokens.references) grid(g);
  return ids;
}

std::vector<float> flux2_periods(const TokenLayout& tokens) {
  if (!tokens.wrap_rows && !tokens.wrap_columns) return {};
  std::vector<float> periods(static_cast<size_t>(4 * tokens.text), 0.0f);
  const auto grid = [&](int64_t rows, int64_t columns) {
    for (int64_t i = 0; i < rows * columns; ++i) {
      periods.insert(periods.end(), {0, tokens.wrap_rows ? static_cast<float>(rows) : 0.0f,
                                     tokens.wrap_columns ? static_cast<float>(columns) : 0.0f, 0});
    }
  };
  grid(tokens.rows, tokens.columns);
  for (const ReferenceGrid& g : tokens.references) grid(g.rows, g.columns);
  return periods;
}

}  // namespace vkflux
