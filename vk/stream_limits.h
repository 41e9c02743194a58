// What a stream's parts agree on.
#pragma once

#include <algorithm>
#include <cstdint>

#include "vk/device.h"

namespace vkflux {

constexpr uint32_t kQueries = 4096;  // timestamps of one profiled batch
constexpr uint32_t kSetsPerPool = 1024;

/// Whether the host reads all of the device's memory as fast as its own (CPUs, some integrated GPUs): then
/// results need no copy.
inline bool host_reads_memory(const Device& device) {
  constexpr VkMemoryPropertyFlags kFast = VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT |
                                          VK_MEMORY_PROPERTY_HOST_COHERENT_BIT |
                                          VK_MEMORY_PROPERTY_HOST_CACHED_BIT;
  const VkPhysicalDeviceMemoryProperties& m = device.memory_properties();
  return std::all_of(m.memoryTypes, m.memoryTypes + m.memoryTypeCount, [](const VkMemoryType& type) {
    return !(type.propertyFlags & VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT) ||
           (type.propertyFlags & kFast) == kFast;
  });
}

}  // namespace vkflux
