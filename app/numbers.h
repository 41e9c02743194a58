// Numbers that people write: decimal digits and nothing else, in a range. No octal or hexadecimal, no "nan",
// no sign of unsigned numbers, nothing that wraps or is cut off.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <utility>

namespace vkflux {

/// The ends of what is allowed, both of them allowed.
template <class T>
struct Range {
  T least = std::numeric_limits<T>::lowest(), most = std::numeric_limits<T>::max();
};

/// A whole number in digits ("010" is 10). `what` begins the message: a flag's name, say. Error
/// invalid_argument says what was there and what is expected.
int64_t whole_number(std::string_view text, Range<int64_t> range, const std::string& what);
uint64_t whole_number(std::string_view text, Range<uint64_t> range, const std::string& what);

/// A finite number such as 12, .5 or 1e-3. Errors as above, also where it is too close to 0 for a double.
double real_number(std::string_view text, Range<double> range, const std::string& what);

/// Sides of pictures in pixels.
constexpr int64_t kMaxPictureSide = 16384;

/// WIDTHxHEIGHT in pixels, each from 1 to kMaxPictureSide. Error invalid_argument.
std::pair<int64_t, int64_t> size_in_pixels(std::string_view text, const std::string& what);

}  // namespace vkflux
