// Seeds of a batch of pictures, reproducible from one base seed in every program that draws them by
// the same law.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

namespace vkflux {

/// A base seed in words of 32 bits, lowest first, the last one not 0 (of seed 0: one word 0).
using BaseSeed = std::vector<uint32_t>;

/// `count` integers, each uniform in [lo, hi]. Error invalid_argument: count outside 1..1000000, hi < lo.
std::vector<uint64_t> seed_batch(const BaseSeed& seed, int64_t count, uint64_t lo = 0,
                                 uint64_t hi = std::numeric_limits<uint64_t>::max());

/// A decimal integer of up to 1000 digits; a negative one stands for its magnitude. Error invalid_argument.
BaseSeed parse_base_seed(std::string_view text);
/// A picture's seed, or a bound of seeds: an integer from 0 to 2^64 - 1. `name` is for the message.
uint64_t parse_seed_bound(std::string_view text, const std::string& name);

/// What a command line may say: "7", "1,2,3", "random:BASE:COUNT" or "random:BASE:COUNT:MIN:MAX".
/// Error invalid_argument.
std::vector<uint64_t> parse_seeds(std::string_view text);

}  // namespace vkflux
