// Philox 4x32-10 on the host (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011).
#pragma once

#include <array>
#include <cstdint>
#include <utility>

namespace vkflux {

using PhiloxBlock = std::array<uint32_t, 4>;

/// One block: ten rounds over the counter with the key bumped between them.
constexpr PhiloxBlock philox4x32(PhiloxBlock counter, std::array<uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53u} * counter[0];
    const uint64_t p1 = uint64_t{0xCD9E8D57u} * counter[2];
    counter = {static_cast<uint32_t>(p1 >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(p1),
               static_cast<uint32_t>(p0 >> 32) ^ counter[3] ^ key[1], static_cast<uint32_t>(p0)};
    key[0] += 0x9E3779B9u;
    key[1] += 0xBB67AE85u;
  }
  return counter;
}

/// Two uniforms in (0, 1), odd multiples of 2^-33: element i of draw number `draw`, counter (draw, 0, i, 0).
inline std::pair<double, double> philox_uniform_pair(uint64_t seed, uint32_t i, uint32_t draw) {
  const PhiloxBlock o =
      philox4x32({draw, 0, i, 0}, {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
  return {o[0] * 0x1p-32 + 0x1p-33, o[1] * 0x1p-32 + 0x1p-33};
}

}  // namespace vkflux
