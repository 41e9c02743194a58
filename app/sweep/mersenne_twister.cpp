#include "app/sweep/mersenne_twister.h"

#include <algorithm>

namespace vkflux {
namespace {

constexpr size_t kShift = 397;  // the recurrence's middle word
constexpr uint32_t kTwist = 0x9908B0DFu;
constexpr uint32_t kBaseSeed = 19650218u;

}  // namespace

MersenneTwister::MersenneTwister(std::span<const uint32_t> key) {
  state_[0] = kBaseSeed;
  for (uint32_t i = 1; i < kWords; ++i) state_[i] = 1812433253u * (state_[i - 1] ^ state_[i - 1] >> 30) + i;
  size_t i = 1;
  const auto advance = [&] {
    if (++i < kWords) return;
    state_[0] = state_[kWords - 1];
    i = 1;
  };
  size_t j = 0;
  for (size_t k = std::max(kWords, key.size()); k > 0; --k) {
    const uint32_t mixed = (state_[i - 1] ^ state_[i - 1] >> 30) * 1664525u;
    state_[i] = (state_[i] ^ mixed) + key[j] + static_cast<uint32_t>(j);
    j = (j + 1) % key.size();
    advance();
  }
  for (size_t k = kWords - 1; k > 0; --k) {
    const uint32_t mixed = (state_[i - 1] ^ state_[i - 1] >> 30) * 1566083941u;
    state_[i] = (state_[i] ^ mixed) - static_cast<uint32_t>(i);
    advance();
  }
  state_[0] = 0x80000000u;
}

void MersenneTwister::refill() {
  for (size_t i = 0; i < kWords; ++i) {
    const uint32_t y = (state_[i] & 0x80000000u) | (state_[(i + 1) % kWords] & 0x7FFFFFFFu);
    state_[i] = state_[(i + kShift) % kWords] ^ y >> 1 ^ (y & 1 ? kTwist : 0);
  }
  used_ = 0;
}

uint32_t MersenneTwister::next() {
  if (used_ == kWords) refill();
  uint32_t y = state_[used_++];
  y ^= y >> 11;
  y ^= y << 7 & 0x9D2C5680u;
  y ^= y << 15 & 0xEFC60000u;
  return y ^ y >> 18;
}

}  // namespace vkflux
