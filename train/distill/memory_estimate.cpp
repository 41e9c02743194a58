#include "train/distill/memory_estimate.h"

#include <algorithm>
#include <cmath>

namespace vkflux {
namespace {

constexpr double kTrainingFactor = 1.6, kReserveFactor = 1.1;
constexpr double kTrainingFloor = 3.0 * 1024 * 1024 * 1024;
constexpr double kOverhead = 16384;  // values

double at_least_one(int64_t n) {
  return static_cast<double>(std::max<int64_t>(1, n));
}

}  // namespace

uint64_t estimate_memory(const MemoryCall& c) {
  // In doubles: exact below 2^53, and without overflow for absurd sizes.
  const double bh = at_least_one(c.batch) * at_least_one(c.heads);
  const double nq = at_least_one(c.queries), nk = at_least_one(c.keys);
  const double d = at_least_one(c.head_dim), f = at_least_one(c.feature_dim);
  const double qc = std::min(nq, at_least_one(c.query_chunk)), kc = std::min(nk, at_least_one(c.key_chunk));
  const double text = std::clamp(static_cast<double>(c.conditioning_tokens), 0.0, nk);
  const double image =
      c.landmark_max <= 0 ? nk - text : std::min(nk - text, static_cast<double>(c.landmark_max));
  const double m = std::min(nk, text + image);
  double values = bh * f * d + bh * f + bh * (kc * f + kc * d + qc * f + qc * d) +
                  bh * (qc * m + m * d + qc * d) + kOverhead;
  if (c.training) {
    values += bh * (nq * d + 2 * nk * d);
    values = std::trunc(kTrainingFactor * values);
  }
  const double bytes = values * at_least_one(c.value_size);
  return bytes < 0x1p63 ? static_cast<uint64_t>(bytes) : uint64_t{1} << 63;
}

uint64_t memory_to_reserve(const MemoryCall& c) {
  double bytes = static_cast<double>(estimate_memory(c));
  if (c.training) {
    const double heads = at_least_one(c.batch) * at_least_one(c.heads);
    bytes = std::max(bytes, std::trunc(kTrainingFloor * (at_least_one(c.feature_dim) / 256) *
                                       (at_least_one(c.head_dim) / 128) * std::max(1.0, heads / 24)));
  }
  bytes *= kReserveFactor;
  return bytes < 0x1p63 ? static_cast<uint64_t>(bytes) : uint64_t{1} << 63;
}

}  // namespace vkflux
