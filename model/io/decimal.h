// Floats as people wrote them.
#pragma once

#include <fmt/format.h>

#include <cstdlib>

namespace vkflux::io {

/// The number whose decimal form is the shortest that names x: 0.2f gives 0.2, where widening gives
/// 0.20000000298023224. For numbers that go into JSON or are compared with what was asked for.
inline double decimal(float x) {
  return std::strtod(fmt::format("{}", x).c_str(), nullptr);
}

}  // namespace vkflux::io
