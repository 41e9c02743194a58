#include "model/flux/rope.h"

namespace vkflux {

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
