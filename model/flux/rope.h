// Positions of FLUX.1's tokens.
#pragma once

#include <cstdint>
#include <vector>

#include "model/attention/attention.h"
#include "model/rope.h"

namespace vkflux {

/// FLUX.1 ids [text + rows * columns, 3]: text all zero, then image tokens (0, row, column).
std::vector<float> flux1_ids(int64_t text, int64_t rows, int64_t columns);
/// FLUX.1 ids [tokens, 3] of tokens.text, tokens.rows and tokens.columns as above, then the references'
/// (index, row, column).
std::vector<float> flux1_ids(const TokenLayout& tokens);
/// The periods of these ids, where rows or columns wrap; else empty.
std::vector<float> flux1_periods(const TokenLayout& tokens);

}  // namespace vkflux
