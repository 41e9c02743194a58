#include "vk/recording.h"

#include <exception>

#include "vk/device.h"
#include "vk/error.h"

namespace vkflux {

bool Recording::supported(const Device& device) {
  return device.caps().push_descriptor;
}

Recording::Recording(Device& device) : device_(device) {
  if (!supported(device))
    throw Error(ErrorCode::unsupported, "recorded work needs a device with VK_KHR_push_descriptor");
  if (device.rehearsing()) return;
  VkCommandPoolCreateInfo info{};
  info.sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO;
  info.queueFamilyIndex = device_.queue_family();
  check(device_.vk().vkCreateCommandPool(device_.handle(), &info, nullptr, &pool_), "vkCreateCommandPool");
}

Recording::~Recording() {
  if (!pool_) return;
  try {
    device_.stream().wait(last_use_);
  } catch (const Error&) {
    device_.stream().drain();  // lost: what was submitted before ends or has ended
  }
  device_.vk().vkDestroyCommandPool(device_.handle(), pool_, nullptr);
}

bool Recording::replayable() const {
  return complete_ && !host_data_ && views_generation_ == device_.pool().views_generation();
}

void Recording::begin_piece() {
  if (!pool_) return pieces_.push_back({});
  VkCommandBufferAllocateInfo alloc{};
  alloc.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO;
  alloc.commandPool = pool_;
  alloc.level = VK_COMMAND_BUFFER_LEVEL_SECONDARY;
  alloc.commandBufferCount = 1;
  Piece piece;
  const DeviceFunctions& vk = device_.vk();
  check(vk.vkAllocateCommandBuffers(device_.handle(), &alloc, &piece.commands), "vkAllocateCommandBuffers");
  VkCommandBufferInheritanceInfo inherited{};
  inherited.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_INHERITANCE_INFO;
  VkCommandBufferBeginInfo begin{};
  begin.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO;
  begin.flags = VK_COMMAND_BUFFER_USAGE_SIMULTANEOUS_USE_BIT;
  begin.pInheritanceInfo = &inherited;
  check(vk.vkBeginCommandBuffer(piece.commands, &begin), "vkBeginCommandBuffer");
  pieces_.push_back(piece);
}

void Recording::end_piece() {
  if (!pool_) return;
  check(device_.vk().vkEndCommandBuffer(pieces_.back().commands), "vkEndCommandBuffer");
}

RecordingScope::RecordingScope(Stream& stream, Recording& recording)
    : stream_(stream), exceptions_(std::uncaught_exceptions()) {
  stream_.begin(recording);
}

RecordingScope::~RecordingScope() noexcept(false) {
  const bool unwinding = std::uncaught_exceptions() != exceptions_;
  try {
    stream_.end(!unwinding);
  } catch (const Error&) {
    if (!unwinding) throw;
  }
}

}  // namespace vkflux
