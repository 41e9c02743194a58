#include "vk/stream.h"

#include <algorithm>
#include <array>
#include <chrono>

#include "vk/commands.h"
#include "vk/device.h"
#include "vk/error.h"
#include "vk/stream_limits.h"

namespace vkflux {
namespace {

constexpr size_t kMaxInFlight = 3;

double host_ms() {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

}  // namespace

Stream::Stream(Device& device, bool real) : device_(device), real_(real) {
  if (!real_) return;
  VkSemaphoreTypeCreateInfo type{};
  type.sType = VK_STRUCTURE_TYPE_SEMAPHORE_TYPE_CREATE_INFO;
  type.semaphoreType = VK_SEMAPHORE_TYPE_TIMELINE;
  VkSemaphoreCreateInfo info{};
  info.sType = VK_STRUCTURE_TYPE_SEMAPHORE_CREATE_INFO;
  info.pNext = &type;
  check(device_.vk().vkCreateSemaphore(device_.handle(), &info, nullptr, &timeline_), "vkCreateSemaphore");
  if (device.caps().device_class != DeviceClass::cpu) {
    gflops_ = 2000;
    gbs_ = 100;
  }
}

Stream::~Stream() {
  if (!real_) return;
  const DeviceFunctions& vk = device_.vk();
  drain();
  if (open_) idle_.push_back(std::move(current_));
  for (auto& b : in_flight_) idle_.push_back(std::move(b));
  for (Batch& b : idle_) {
    b.keep.clear();
    vk.vkDestroyCommandPool(device_.handle(), b.pool, nullptr);
    vk.vkDestroyDescriptorPool(device_.handle(), b.descriptors, nullptr);
    vk.vkDestroyQueryPool(device_.handle(), b.queries, nullptr);
  }
  vk.vkDestroySemaphore(device_.handle(), timeline_, nullptr);
}

void Stream::make_batch(Batch& b) {
  const DeviceFunctions& vk = device_.vk();
  make_commands(device_, device_.queue_family(), b.pool, b.commands);
  if (!device_.caps().push_descriptor) {
    const std::array<VkDescriptorPoolSize, 2> sizes{
        {{VK_DESCRIPTOR_TYPE_STORAGE_BUFFER, kSetsPerPool * 8},
         {VK_DESCRIPTOR_TYPE_UNIFORM_TEXEL_BUFFER, kSetsPerPool * 8}}};
    VkDescriptorPoolCreateInfo d{};
    d.sType = VK_STRUCTURE_TYPE_DESCRIPTOR_POOL_CREATE_INFO;
    d.maxSets = kSetsPerPool;
    d.poolSizeCount = sizes.size();
    d.pPoolSizes = sizes.data();
    check(vk.vkCreateDescriptorPool(device_.handle(), &d, nullptr, &b.descriptors), "vkCreateDescriptorPool");
  }
  if (device_.caps().timestamp_period > 0) {
    VkQueryPoolCreateInfo q{};
    q.sType = VK_STRUCTURE_TYPE_QUERY_POOL_CREATE_INFO;
    q.queryType = VK_QUERY_TYPE_TIMESTAMP;
    q.queryCount = kQueries;
    check(vk.vkCreateQueryPool(device_.handle(), &q, nullptr, &b.queries), "vkCreateQueryPool");
  }
}

Stream::Batch& Stream::recording() {
  if (lost_) throw Error(ErrorCode::device_lost, "the device was lost earlier");
  if (open_) return current_;
  if (idle_.empty()) {
    current_ = Batch{};
    make_batch(current_);
  } else {
    current_ = std::move(idle_.back());
    idle_.pop_back();
  }
  VkCommandBufferBeginInfo begin{};
  begin.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO;
  begin.flags = VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT;
  const DeviceFunctions& vk = device_.vk();
  check(vk.vkBeginCommandBuffer(current_.commands, &begin), "vkBeginCommandBuffer");
  open_ = true;
  if (current_.queries) {
    vk.vkCmdResetQueryPool(current_.commands, current_.queries, 0, kQueries);
    vk.vkCmdWriteTimestamp(current_.commands, VK_PIPELINE_STAGE_TOP_OF_PIPE_BIT, current_.queries, 0);
  }
  return current_;
}

double Stream::estimate_ms(Cost c) const {
  return c.flops / (gflops_ * 1e6) + c.bytes / (gbs_ * 1e6) + 0.002;
}

uint64_t Stream::submit() {
  if (!real_) return next_value_ - 1;
  if (!target_) return submit_open();
  target_->end_piece();
  run_piece(*target_, target_->pieces_.back());
  const uint64_t value = submit_open();
  target_->begin_piece();
  return value;
}

uint64_t Stream::submit_open() {
  if (!open_) return next_value_ - 1;
  const DeviceFunctions& vk = device_.vk();
  if (current_.queries && current_.timed.empty()) {
    vk.vkCmdWriteTimestamp(current_.commands, VK_PIPELINE_STAGE_BOTTOM_OF_PIPE_BIT, current_.queries, 1);
  }
  if (host_reads_memory(device_)) {
    VkMemoryBarrier barrier{};
    barrier.sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER;
    barrier.srcAccessMask = VK_ACCESS_MEMORY_WRITE_BIT;
    barrier.dstAccessMask = VK_ACCESS_HOST_READ_BIT;
    vk.vkCmdPipelineBarrier(current_.commands, VK_PIPELINE_STAGE_ALL_COMMANDS_BIT, VK_PIPELINE_STAGE_HOST_BIT,
                            0, 1, &barrier, 0, nullptr, 0, nullptr);
  }
  check(vk.vkEndCommandBuffer(current_.commands), "vkEndCommandBuffer");
  current_.value = next_value_++;
  std::vector<VkSemaphore> awaited;
  std::vector<uint64_t> awaited_values;
  for (const auto& [semaphore, value] : begin_after_) {
    awaited.push_back(semaphore);
    awaited_values.push_back(value);
  }
  begin_after_.clear();
  const std::vector<VkPipelineStageFlags> stages(
      awaited.size(), VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT | VK_PIPELINE_STAGE_TRANSFER_BIT);
  VkTimelineSemaphoreSubmitInfo timeline{};
  timeline.sType = VK_STRUCTURE_TYPE_TIMELINE_SEMAPHORE_SUBMIT_INFO;
  timeline.waitSemaphoreValueCount = static_cast<uint32_t>(awaited.size());
  timeline.pWaitSemaphoreValues = awaited_values.data();
  timeline.signalSemaphoreValueCount = 1;
  timeline.pSignalSemaphoreValues = &current_.value;
  VkSubmitInfo info{};
  info.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO;
  info.pNext = &timeline;
  info.waitSemaphoreCount = static_cast<uint32_t>(awaited.size());
  info.pWaitSemaphores = awaited.data();
  info.pWaitDstStageMask = stages.data();
  info.commandBufferCount = 1;
  info.pCommandBuffers = &current_.commands;
  info.signalSemaphoreCount = 1;
  info.pSignalSemaphores = &timeline_;
  VkResult result;
  {
    const auto lock = device_.lock_queue();
    result = vk.vkQueueSubmit(device_.queue(), 1, &info, VK_NULL_HANDLE);
  }
  lost_ = lost_ || result != VK_SUCCESS;  // whatever failed: its end is never signalled
  check(result, "vkQueueSubmit");
  ++counters_.submits;
  current_.submitted_ms = host_ms();
  const uint64_t value = current_.value;
  in_flight_.push_back(std::move(current_));
  open_ = false;
  if (in_flight_.size() > kMaxInFlight) wait(in_flight_.front().value);
  return value;
}

void Stream::wait(uint64_t value) {
  if (!real_) return staged_.clear();
  if (value == next_value_ && open_) submit();
  if (value > done_) {
    // What failed to be submitted never signals.
    if (lost_) throw Error(ErrorCode::device_lost, "the device was lost earlier");
    VkSemaphoreWaitInfo info{};
    info.sType = VK_STRUCTURE_TYPE_SEMAPHORE_WAIT_INFO;
    info.semaphoreCount = 1;
    info.pSemaphores = &timeline_;
    info.pValues = &value;
    const VkResult result = device_.vk().vkWaitSemaphores(device_.handle(), &info, UINT64_MAX);
    lost_ = lost_ || result == VK_ERROR_DEVICE_LOST;
    check(result, "vkWaitSemaphores");
    done_ = value;
  }
  while (!in_flight_.empty() && in_flight_.front().value <= done_) {
    retire(in_flight_.front());
    idle_.push_back(std::move(in_flight_.front()));
    in_flight_.pop_front();
  }
}

void Stream::begin_after(VkSemaphore semaphore, uint64_t value) {
  if (!real_) return;
  submit();
  begin_after_.emplace_back(semaphore, value);
}

void Stream::wait_elsewhere(uint64_t value) const {
  if (!real_) return;
  VkSemaphoreWaitInfo info{};
  info.sType = VK_STRUCTURE_TYPE_SEMAPHORE_WAIT_INFO;
  info.semaphoreCount = 1;
  info.pSemaphores = &timeline_;
  info.pValues = &value;
  check(device_.vk().vkWaitSemaphores(device_.handle(), &info, UINT64_MAX), "vkWaitSemaphores");
}

std::shared_ptr<const BatchTime> Stream::time_of(uint64_t value) {
  if (value <= done_) return std::make_shared<BatchTime>(last_time_);
  std::shared_ptr<BatchTime>& time = watched_[value];
  if (!time) time = std::make_shared<BatchTime>();
  return time;
}

void Stream::drain() noexcept {
  if (in_flight_.empty()) return;
  VkSemaphoreWaitInfo info{};
  info.sType = VK_STRUCTURE_TYPE_SEMAPHORE_WAIT_INFO;
  info.semaphoreCount = 1;
  info.pSemaphores = &timeline_;
  info.pValues = &in_flight_.back().value;
  device_.vk().vkWaitSemaphores(device_.handle(), &info, UINT64_MAX);
}

bool Stream::idle() {
  if (open_ || in_flight_.empty()) return !open_;
  const uint64_t last = in_flight_.back().value;
  uint64_t reached = 0;
  const VkResult result = device_.vk().vkGetSemaphoreCounterValue(device_.handle(), timeline_, &reached);
  if (result != VK_SUCCESS || reached < last) return false;
  wait(last);
  return true;
}

// Reads the batch's timestamps, calibrates the estimate, and makes the batch ready for reuse.
void Stream::retire(Batch& b) {
  const DeviceFunctions& vk = device_.vk();
  const uint32_t n = 1 + std::max<uint32_t>(1, static_cast<uint32_t>(b.timed.size()));
  std::vector<uint64_t> ticks(n);
  last_time_ = {b.submitted_ms, host_ms()};
  if (b.queries && vk.vkGetQueryPoolResults(device_.handle(), b.queries, 0, n, n * 8, ticks.data(), 8,
                                            VK_QUERY_RESULT_64_BIT) == VK_SUCCESS) {
    const double ms = device_.caps().timestamp_period * 1e-6;
    for (size_t i = 0; i < b.timed.size(); ++i) {
      const Timed& t = b.timed[i];
      device_.profiler().add({t.name, t.scope, static_cast<double>(ticks[i]) * ms,
                              static_cast<double>(ticks[i + 1]) * ms, t.cost.flops, t.cost.bytes});
    }
    last_time_ = {static_cast<double>(ticks[0]) * ms, static_cast<double>(ticks[n - 1]) * ms};
    const double actual = static_cast<double>(ticks[n - 1] - ticks[0]) * ms;
    if (b.estimated_ms > 1 && actual > 0) {
      const double ratio = std::clamp(b.estimated_ms / actual, 0.5, 2.0), scale = 1 + 0.1 * (ratio - 1);
      gflops_ = std::max(gflops_ * scale, 0.1);
      gbs_ = std::max(gbs_ * scale, 0.02);
    }
  }
  if (const auto watched = watched_.find(b.value); watched != watched_.end()) {
    *watched->second = last_time_;
    watched_.erase(watched);
  }
  b.timed.clear();
  b.keep.clear();
  b.estimated_ms = 0;
  b.descriptor_sets = 0;
  check(vk.vkResetCommandPool(device_.handle(), b.pool, 0), "vkResetCommandPool");
  if (b.descriptors)
    check(vk.vkResetDescriptorPool(device_.handle(), b.descriptors, 0), "vkResetDescriptorPool");
}

}  // namespace vkflux
