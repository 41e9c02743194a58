// Command buffers of whoever records work.
#pragma once

#include <cstdint>

#include "vk/device.h"
#include "vk/error.h"

namespace vkflux {

/// A transient pool of a queue family, and the one primary buffer in it, which goes with the pool. The pool
/// is the caller's, also when the buffer can't be made.
inline void make_commands(const Device& device, uint32_t family, VkCommandPool& pool,
                          VkCommandBuffer& buffer) {
  const DeviceFunctions& vk = device.vk();
  VkCommandPoolCreateInfo info{};
  info.sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO;
  info.flags = VK_COMMAND_POOL_CREATE_TRANSIENT_BIT;
  info.queueFamilyIndex = family;
  check(vk.vkCreateCommandPool(device.handle(), &info, nullptr, &pool), "vkCreateCommandPool");
  VkCommandBufferAllocateInfo alloc{};
  alloc.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO;
  alloc.commandPool = pool;
  alloc.level = VK_COMMAND_BUFFER_LEVEL_PRIMARY;
  alloc.commandBufferCount = 1;
  check(vk.vkAllocateCommandBuffers(device.handle(), &alloc, &buffer), "vkAllocateCommandBuffers");
}

}  // namespace vkflux
