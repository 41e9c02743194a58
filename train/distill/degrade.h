// What is given up when the device's memory runs out while a layer is trained.
#pragma once

#include <cstdint>
#include <string>

namespace vkflux {

/// The sizes that decide how much memory a training call needs.
struct TrainingSizes {
  int64_t query_cap = 128;  // training_query_token_cap
  int64_t query_chunk = 256, key_chunk = 1024;
  int64_t landmark_min = 64, landmark_max = 0;  // max 0: no limit

  bool operator==(const TrainingSizes&) const = default;
};

/// Halves everything that is above its floor, all at once; false when nothing is. The caller also empties the
/// layer's replay samples, keeps the new sizes for good, and stops training when neither helped.
bool degrade(TrainingSizes& sizes);

/// "query cap 128 -> 64, key chunk 1024 -> 512", of what differs.
std::string describe_degradation(const TrainingSizes& before, const TrainingSizes& after);

}  // namespace vkflux
