// Positions of FLUX.2's tokens: four axes (index, row, column, place in the text).
#pragma once

#include <vector>

#include "model/attention/attention.h"
#include "model/rope.h"

namespace vkflux {

/// Ids [tokens, 4]: text token number k (0, 0, 0, k); the drawn tokens (0, row, column, 0); those of
/// references (their grid's index, row, column, 0); the published models have them at 10, 20, ...
std::vector<float> flux2_ids(const TokenLayout& tokens);
/// The periods of these ids, where rows or columns wrap; else empty.
std::vector<float> flux2_periods(const TokenLayout& tokens);

}  // namespace vkflux
