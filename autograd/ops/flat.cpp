#include "autograd/ops/flat.h"

#include <algorithm>

namespace vkflux {

bool use_wide(Device& device, const char* op, int64_t count) {
  return count % 8 == 0 && device.caps().int64 && use_simd(device, op);
}

FlatLaunch flat_launch(Device& device, const char* op, int64_t count, int64_t row) {
  const auto n = static_cast<uint64_t>(count);
  if (!use_wide(device, op, count) || row % 8 != 0) return {"f32", 256, groups_1d(ceil_div(n, 4 * 256))};
  const uint32_t local = device.caps().subgroup_size;
  // A workgroup costs as much as a few steps; a few of them should be there for every core.
  const uint64_t steps = ceil_div(n, uint64_t{8} * local), run = std::clamp<uint64_t>(steps / 16, 8, 128);
  return {"wide", local, groups_1d(ceil_div(steps, run))};
}

}  // namespace vkflux
