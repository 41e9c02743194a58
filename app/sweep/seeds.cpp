#include "app/sweep/seeds.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <charconv>
#include <optional>

#include "app/sweep/mersenne_twister.h"
#include "model/text/characters.h"
#include "vk/error.h"

namespace vkflux {
namespace {

constexpr int64_t kMaxSeeds = 1000000;

// Uniform in [0, most] by rejection: draws of as many bits as most + 1 has, low words first.
uint64_t draw(MersenneTwister& words, uint64_t most) {
  const int bits = most == std::numeric_limits<uint64_t>::max() ? 65 : std::bit_width(most + 1);
  for (;;) {
    if (bits <= 32) {
      const uint32_t r = words.next() >> (32 - bits);
      if (r <= most) return r;
      continue;
    }
    uint64_t r = words.next();
    uint64_t high = words.next();
    if (bits < 64) high >>= 64 - bits;
    r |= high << 32;
    const bool overflows = bits == 65 && words.next() >> 31 != 0;
    if (!overflows && r <= most) return r;
  }
}

std::optional<uint64_t> digits(std::string_view text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc() || end != text.data() + text.size()) return {};
  return value;
}

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> out;
  for (size_t at = 0;;) {
    const size_t end = text.find(separator, at);
    out.push_back(trim(text.substr(at, end == std::string_view::npos ? end : end - at)));
    if (end == std::string_view::npos) return out;
    at = end + 1;
  }
}

}  // namespace

std::vector<uint64_t> seed_batch(const BaseSeed& seed, int64_t count, uint64_t lo, uint64_t hi) {
  if (count < 1 || count > kMaxSeeds) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("a batch of {} seeds; 1 to {} are possible", count, kMaxSeeds));
  }
  if (hi < lo) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("seeds from {} to {}: the largest is below the smallest", lo, hi));
  }
  MersenneTwister words(seed);
  std::vector<uint64_t> seeds;
  for (int64_t i = 0; i < count; ++i) seeds.push_back(lo + draw(words, hi - lo));
  return seeds;
}

BaseSeed parse_base_seed(std::string_view text) {
  constexpr size_t kMostDigits = 1000;
  std::string_view word = trim(text);
  if (!word.empty() && word.front() == '-') word.remove_prefix(1);
  const bool decimal = std::all_of(word.begin(), word.end(), [](char c) { return c >= '0' && c <= '9'; });
  if (word.empty() || !decimal || word.size() > kMostDigits)
    throw Error(ErrorCode::invalid_argument,
                fmt::format("'{}' is no seed; a decimal integer is needed", text));
  BaseSeed words{0};
  for (const char c : word) {
    uint64_t carry = static_cast<uint64_t>(c - '0');
    for (uint32_t& w : words) {
      carry += uint64_t{10} * w;
      w = static_cast<uint32_t>(carry);
      carry >>= 32;
    }
    if (carry != 0) words.push_back(static_cast<uint32_t>(carry));
  }
  return words;
}

uint64_t parse_seed_bound(std::string_view text, const std::string& name) {
  const std::optional<uint64_t> value = digits(trim(text));
  if (value) return *value;
  throw Error(ErrorCode::invalid_argument,
              fmt::format("the {} is '{}'; an integer from 0 to 2^64 - 1 is needed", name, text));
}

std::vector<uint64_t> parse_seeds(std::string_view text) {
  const std::vector<std::string_view> parts = split(text, ':');
  if (parts.front() != "random") {
    std::vector<uint64_t> seeds;
    for (std::string_view word : split(text, ',')) seeds.push_back(parse_seed_bound(word, "seed"));
    return seeds;
  }
  if (parts.size() != 3 && parts.size() != 5) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("'{}': seeds are given as random:BASE:COUNT or random:BASE:COUNT:MIN:MAX", text));
  }
  const uint64_t count = parse_seed_bound(parts[2], "number of seeds");
  const auto bounded = static_cast<int64_t>(std::min<uint64_t>(count, kMaxSeeds + 1));
  if (parts.size() == 3) return seed_batch(parse_base_seed(parts[1]), bounded);
  return seed_batch(parse_base_seed(parts[1]), bounded, parse_seed_bound(parts[3], "smallest seed"),
                    parse_seed_bound(parts[4], "largest seed"));
}

}  // namespace vkflux
