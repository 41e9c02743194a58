#include "train/distill/degrade.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace vkflux {
namespace {

constexpr int64_t kQueryCapFloor = 32, kQueryChunkFloor = 64, kKeyChunkFloor = 256;
constexpr int64_t kFirstLandmarkCap = 512;

void halve(int64_t& value, int64_t floor) {
  if (value > floor) value = std::max(floor, value / 2);
}

}  // namespace

bool degrade(TrainingSizes& sizes) {
  const TrainingSizes before = sizes;
  halve(sizes.query_cap, kQueryCapFloor);
  halve(sizes.query_chunk, kQueryChunkFloor);
  halve(sizes.key_chunk, kKeyChunkFloor);
  if (sizes.landmark_max <= 0) {
    sizes.landmark_max = std::max(sizes.landmark_min, kFirstLandmarkCap);
  } else {
    halve(sizes.landmark_max, sizes.landmark_min);
  }
  return !(sizes == before);
}

std::string describe_degradation(const TrainingSizes& before, const TrainingSizes& after) {
  struct Row {
    const char* name;
    int64_t TrainingSizes::*value;
  };
  constexpr std::array<Row, 4> kRows{{{"query cap", &TrainingSizes::query_cap},
                                      {"query chunk", &TrainingSizes::query_chunk},
                                      {"key chunk", &TrainingSizes::key_chunk},
                                      {"landmark maximum", &TrainingSizes::landmark_max}}};
  std::string out;
  for (const Row& row : kRows) {
    if (before.*row.value == after.*row.value) continue;
    const std::string was = row.value == &TrainingSizes::landmark_max && before.landmark_max <= 0
                                ? "none"
                                : fmt::format("{}", before.*row.value);
    out += fmt::format("{}{} {} -> {}", out.empty() ? "" : ", ", row.name, was, after.*row.value);
  }
  return out;
}

}  // namespace vkflux
