// Seeds of a batch of pictures, reproducible from one base seed in every program that draws them by
// the same law.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

namespace vkflux {

/// `count` integers, each uniform in [lo, hi]. Error invalid_argument: count outside 1..1000000, hi < lo.
std::vector<uint64_t> seed_batch(uint64_t seed, int64_t count, uint64_t lo = 0,
                                 uint64_t hi = std::numeric_limits<uint64_t>::max());

/// A base seed: a decimal integer below 2^64; a negative one stands for its magnitude. Error
/// invalid_argument.
uint64_t parse_seed(std::string_view text);
/// A bound of the seeds: the same without a sign. `name` is for the message.
uint64_t parse_seed_bound(std::string_view text, const std::string& name);

/// What a command line may say: "7", "1,2,3", "random:BASE:COUNT" or "random:BASE:COUNT:MIN:MAX".
/// Error invalid_argument.
std::vector<uint64_t> parse_seeds(std::string_view text);

}  // namespace vkflux
