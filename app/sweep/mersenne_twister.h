// MT19937 (Matsumoto and Nishimura, "Mersenne Twister: a 623-dimensionally equidistributed uniform
// pseudorandom number generator", 1998) seeded by an array of words, which std::mt19937 can't do.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace vkflux {

class MersenneTwister {
 public:
  /// The authors' init_by_array. The key must not be empty.
  explicit MersenneTwister(std::span<const uint32_t> key);
  uint32_t next();

 private:
  static constexpr size_t kWords = 624;
  void refill();

  std::array<uint32_t, kWords> state_{};
  size_t used_ = kWords;
};

}  // namespace vkflux
