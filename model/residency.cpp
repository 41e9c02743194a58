#include "model/residency.h"

#include <algorithm>
#include <numeric>

#include "autograd/packed.h"
#include "model/load.h"
#include "vk/device.h"

namespace vkflux {
std::vector<bool> parts_that_stay(std::span<const ModelPart> parts, uint64_t usable,
                                  std::optional<bool> forced) {
  std::vector<bool> stays(parts.size(), forced.value_or(false));
  if (forced) return stays;
  std::vector<size_t> order(parts.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return parts[a].use > parts[b].use; });
  const auto needed = [&] {
    uint64_t kept = 0, largest = 0;
    for (size_t i = 0; i < parts.size(); ++i) {
      if (stays[i]) kept += parts[i].bytes;
      if (!stays[i]) largest = std::max(largest, parts[i].bytes);
    }
    return kept + largest;
  };
  for (const size_t i : order) {
    stays[i] = true;
    stays[i] = needed() <= usable / 2;
  }
  return stays;
}

uint64_t usable_bytes(Device& device) {
  const uint64_t budget = device.pool().usage().budget, there = device.available_memory();
  if (budget == 0) return there;
  return device.caps().device_class == DeviceClass::cpu ? budget : std::min(budget, there);
}

std::vector<bool> spread(size_t layers, size_t count) {
  std::vector<bool> out(layers);
  for (size_t i = 0; i < layers; ++i) out[i] = (i + 1) * count / layers > i * count / layers;
  return out;
}

uint64_t device_bytes(const io::NamedTensors& file, WantedType matrices, const StorageRules& rules) {
  uint64_t total = 0;
  for (const auto& [name, shape] : shapes_of(file)) {
    const DType dtype = storage_of(rules, {name, shape, nullptr}, matrices, file.dtype(name));
    total += stored_bytes(dtype, shape);
  }
  return total;
}

}  // namespace vkflux
