// Philox 4x32-10 on the host: the counter-based generator of Salmon et al. 2011.
#pragma once

#include <array>
#include <cstdint>
#include <utility>

namespace vkflux {

inline std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t{0xD2511F53u} * counter[0], b = uint64_t{0xCD9E8D57u} * counter[2];
    counter = {static_cast<uint32_t>(b >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(b),
               static_cast<uint32_t>(a >> 32) ^ counter[3] ^ key[1], static_cast<uint32_t>(a)};
    key[0] += 0x9E3779B9u;
    key[1] += 0xBB67AE85u;
  }
  return counter;
}

/// Two uniforms in (0, 1], multiples of 2^-33.
using PhiloxPair = std::pair<double, double>;

/// Element i of draw number d: counter (d, 0, i, 0), key (low, high half of the seed).
inline PhiloxPair philox_uniform_pair(uint64_t seed, uint32_t i, uint32_t draw) {
  const auto o = philox4x32({draw, 0, i, 0}, {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
  return {o[0] * 0x1p-32 + 0x1p-33, o[1] * 0x1p-32 + 0x1p-33};
}

}  // namespace vkflux
