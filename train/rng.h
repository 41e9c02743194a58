// Host random numbers that are functions of a counter, not of history: Philox 4x32-10 (Salmon et al.,
// "Parallel random numbers: as easy as 1, 2, 3", 2011). A training run resumes exactly because every choice
// is addressed by (seed, stream, step, index) and nothing has to be saved.
#pragma once

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numbers>

#include "model/philox.h"

namespace vkflux {

/// A sequence of draws at one address. `stream` separates purposes (shuffle, caption, timestep, ...), `step`
/// is the training step, `index` the sample within it. Two objects with one address give the same draws.
class Rng {
 public:
  Rng(uint64_t seed, uint32_t stream, uint32_t step = 0, uint32_t index = 0)
      : key_{static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)},
        counter_{0, index, step, stream} {}

  uint32_t next() {
    if (used_ == 4) {
      block_ = philox4x32(counter_, key_);
      ++counter_[0];
      used_ = 0;
    }
    return block_[used_++];
  }

  /// Uniform in [0, 1): multiples of 2^-24, so exact as a float.
  float uniform() { return static_cast<float>(next() >> 8) * 0x1p-24f; }

  /// Uniform integer in [0, n), n > 0. The bias of the multiply-shift is below n / 2^32.
  uint32_t below(uint32_t n) { return static_cast<uint32_t>((uint64_t{next()} * n) >> 32); }

  /// Standard normal (Box-Muller, cosine branch only: a draw costs two words whatever came before).
  float normal() {
    const double u = (static_cast<double>(next()) + 0.5) * 0x1p-32;
    const double v = static_cast<double>(next()) * 0x1p-32;
    return static_cast<float>(std::sqrt(-2.0 * std::log(u)) * std::cos(2.0 * std::numbers::pi * v));
  }

 private:
  std::array<uint32_t, 2> key_;
  PhiloxBlock counter_;
  PhiloxBlock block_{};
  size_t used_ = 4;
};

}  // namespace vkflux
