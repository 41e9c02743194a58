#include "vk/uploader.h"

#include <array>

#include "vk/commands.h"
#include "vk/device.h"
#include "vk/error.h"

namespace vkflux {

Uploader::Uploader(Device& device)
    : device_(device), queue_(device.transfer_queue() ? device.transfer_queue() : device.queue()) {
  const DeviceFunctions& vk = device_.vk();
  VkSemaphoreTypeCreateInfo type{};
  type.sType = VK_STRUCTURE_TYPE_SEMAPHORE_TYPE_CREATE_INFO;
  type.semaphoreType = VK_SEMAPHORE_TYPE_TIMELINE;
  VkSemaphoreCreateInfo info{};
  info.sType = VK_STRUCTURE_TYPE_SEMAPHORE_CREATE_INFO;
  info.pNext = &type;
  check(vk.vkCreateSemaphore(device_.handle(), &info, nullptr, &timeline_), "vkCreateSemaphore");
  const uint32_t family = device_.transfer_queue() ? device_.transfer_family() : device_.queue_family();
  for (Commands& c : commands_) make_commands(device_, family, c.pool, c.buffer);
}

Uploader::~Uploader() {
  const DeviceFunctions& vk = device_.vk();
  try {
    wait(next_value_ - 1);
  } catch (const Error&) {  // lost: what was submitted has ended
  }
  for (Commands& c : commands_) vk.vkDestroyCommandPool(device_.handle(), c.pool, nullptr);
  vk.vkDestroySemaphore(device_.handle(), timeline_, nullptr);
}

void Uploader::wait(uint64_t value) {
  if (value == 0) return;
  VkSemaphoreWaitInfo info{};
  info.sType = VK_STRUCTURE_TYPE_SEMAPHORE_WAIT_INFO;
  info.semaphoreCount = 1;
  info.pSemaphores = &timeline_;
  info.pValues = &value;
  check(device_.vk().vkWaitSemaphores(device_.handle(), &info, UINT64_MAX), "vkWaitSemaphores");
}

uint64_t Uploader::copy(const std::vector<Copy>& copies, uint64_t after) {
  const DeviceFunctions& vk = device_.vk();
  const uint64_t value = next_value_;
  Commands& c = commands_[value % 2];
  wait(c.value);
  check(vk.vkResetCommandPool(device_.handle(), c.pool, 0), "vkResetCommandPool");
  VkCommandBufferBeginInfo begin{};
  begin.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO;
  begin.flags = VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT;
  check(vk.vkBeginCommandBuffer(c.buffer, &begin), "vkBeginCommandBuffer");
  for (const Copy& x : copies) {
    const VkBufferCopy region{x.from->offset() + x.from_offset, x.to->offset(), x.size};
    vk.vkCmdCopyBuffer(c.buffer, x.from->handle(), x.to->handle(), 1, &region);
  }
  check(vk.vkEndCommandBuffer(c.buffer), "vkEndCommandBuffer");
  const VkSemaphore stream = device_.stream().timeline();
  const VkPipelineStageFlags stage = VK_PIPELINE_STAGE_TRANSFER_BIT;
  VkTimelineSemaphoreSubmitInfo timeline{};
  timeline.sType = VK_STRUCTURE_TYPE_TIMELINE_SEMAPHORE_SUBMIT_INFO;
  timeline.waitSemaphoreValueCount = 1;
  timeline.pWaitSemaphoreValues = &after;
  timeline.signalSemaphoreValueCount = 1;
  timeline.pSignalSemaphoreValues = &value;
  VkSubmitInfo info{};
  info.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO;
  info.pNext = &timeline;
  info.waitSemaphoreCount = 1;
  info.pWaitSemaphores = &stream;
  info.pWaitDstStageMask = &stage;
  info.commandBufferCount = 1;
  info.pCommandBuffers = &c.buffer;
  info.signalSemaphoreCount = 1;
  info.pSignalSemaphores = &timeline_;
  {
    const auto lock = device_.transfer_queue() ? nullptr : device_.lock_queue();
    check(vk.vkQueueSubmit(queue_, 1, &info, VK_NULL_HANDLE), "vkQueueSubmit");
  }
  c.value = value;
  ++next_value_;
  return value;
}

}  // namespace vkflux
