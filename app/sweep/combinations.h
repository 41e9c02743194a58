// How the values of a sweep are spread over its pictures.
#pragma once

#include <cstddef>
#include <vector>

namespace vkflux {

/// The values in order, each n / m times and the first n mod m once more, for n entries of a clock.
/// Error invalid_argument: no clock, no values, more values than clock.
std::vector<double> clocked_values(size_t clock_length, const std::vector<double>& values);
/// The clock to use: 1, 2, ..., number of values when it's empty.
std::vector<double> clock_or_count(std::vector<double> clock, const std::vector<double>& values);

enum class CombinationMode {
  modular,    // the reference: list k repeats itself; every combination only if the lengths are coprime
  cartesian,  // every combination once, the last list varying fastest
};

/// One list of equal length (the product of all lengths) for every list. Error invalid_argument: no lists, an
/// empty one, or more than a million combinations.
std::vector<std::vector<double>> combinations(const std::vector<std::vector<double>>& lists,
                                              CombinationMode mode = CombinationMode::modular);
/// The same when all but the first may be absent: empty ones are left out and stay empty in the result.
std::vector<std::vector<double>> optional_combinations(const std::vector<std::vector<double>>& lists,
                                                       CombinationMode mode = CombinationMode::modular);

}  // namespace vkflux
