#include "vk/stream.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "vk/device.h"
#include "vk/error.h"

namespace vkflux {
namespace {

constexpr uint32_t kQueries = 4096;  // timestamps of one profiled batch
constexpr uint32_t kSetsPerPool = 1024;
constexpr size_t kMaxInFlight = 3;
constexpr size_t kMaxTouched = 256;  // beyond this a barrier is cheaper than the comparisons
constexpr uint64_t kMaxStagingInFlight = 64ull << 20;

}  // namespace

Stream::Stream(Device& device) : device_(device) {
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
  const DeviceFunctions& vk = device_.vk();
  vk.vkDeviceWaitIdle(device_.handle());
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
  VkCommandPoolCreateInfo pool{};
  pool.sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO;
  pool.flags = VK_COMMAND_POOL_CREATE_TRANSIENT_BIT;
  pool.queueFamilyIndex = device_.queue_family();
  check(vk.vkCreateCommandPool(device_.handle(), &pool, nullptr, &b.pool), "vkCreateCommandPool");
  VkCommandBufferAllocateInfo alloc{};
  alloc.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO;
  alloc.commandPool = b.pool;
  alloc.level = VK_COMMAND_BUFFER_LEVEL_PRIMARY;
  alloc.commandBufferCount = 1;
  check(vk.vkAllocateCommandBuffers(device_.handle(), &alloc, &b.commands), "vkAllocateCommandBuffers");
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

// One global barrier when `next` reads what was written, or writes what was read or written, since the last
// one.
void Stream::guard(std::span<const Touched> next) {
  bool conflict = touched_.size() + next.size() > kMaxTouched;
  for (const Touched& n : next) {
    if (conflict) break;
    for (const Touched& t : touched_) {
      if (t.buffer == n.buffer && t.begin < n.end && n.begin < t.end && (t.written || n.written)) {
        conflict = true;
        break;
      }
    }
  }
  if (conflict) {
    VkMemoryBarrier barrier{};
    barrier.sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER;
    barrier.srcAccessMask = VK_ACCESS_SHADER_WRITE_BIT | VK_ACCESS_TRANSFER_WRITE_BIT;
    barrier.dstAccessMask = VK_ACCESS_SHADER_READ_BIT | VK_ACCESS_SHADER_WRITE_BIT |
                            VK_ACCESS_TRANSFER_READ_BIT | VK_ACCESS_TRANSFER_WRITE_BIT;
    constexpr VkPipelineStageFlags kStages =
        VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT | VK_PIPELINE_STAGE_TRANSFER_BIT;
    device_.vk().vkCmdPipelineBarrier(current_.commands, kStages, kStages, 0, 1, &barrier, 0, nullptr, 0,
                                      nullptr);
    touched_.clear();
    ++counters_.barriers;
  }
  touched_.insert(touched_.end(), next.begin(), next.end());
}

void Stream::bind(Batch& batch, const Kernel& kernel, std::span<const BufferRange> bindings) {
  const size_t n = bindings.size();
  std::array<VkDescriptorBufferInfo, 16> buffers;
  std::array<VkBufferView, 16> views;
  std::array<VkWriteDescriptorSet, 16> writes;
  const DeviceFunctions& vk = device_.vk();
  VkDescriptorSet set = VK_NULL_HANDLE;
  if (!device_.caps().push_descriptor) {
    VkDescriptorSetAllocateInfo alloc{};
    alloc.sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_ALLOCATE_INFO;
    alloc.descriptorPool = batch.descriptors;
    alloc.descriptorSetCount = 1;
    alloc.pSetLayouts = &kernel.set_layout;
    check(vk.vkAllocateDescriptorSets(device_.handle(), &alloc, &set), "vkAllocateDescriptorSets");
    ++batch.descriptor_sets;
  }
  for (size_t i = 0; i < n; ++i) {
    const KernelBinding& b = kernel.interface.bindings[i];
    const BufferRange& r = bindings[i];
    const uint64_t offset = r.buffer->offset() + r.offset;
    writes[i] = VkWriteDescriptorSet{};
    writes[i].sType = VK_STRUCTURE_TYPE_WRITE_DESCRIPTOR_SET;
    writes[i].dstSet = set;
    writes[i].dstBinding = b.binding;
    writes[i].descriptorCount = 1;
    if (b.type == KernelBinding::Type::storage) {
      writes[i].descriptorType = VK_DESCRIPTOR_TYPE_STORAGE_BUFFER;
      // Vector accesses may touch the padding behind the last element: ranges are rounded up to 16 bytes,
      // which every buffer has room for.
      buffers[i] = {r.buffer->handle(), offset, (r.size + 15) / 16 * 16};
      writes[i].pBufferInfo = &buffers[i];
    } else {
      writes[i].descriptorType = VK_DESCRIPTOR_TYPE_UNIFORM_TEXEL_BUFFER;
      views[i] = device_.pool().view(r.buffer->block(), offset, (r.size + 15) / 16 * 16, b.format);
      writes[i].pTexelBufferView = &views[i];
    }
  }
  if (set) {
    vk.vkUpdateDescriptorSets(device_.handle(), static_cast<uint32_t>(n), writes.data(), 0, nullptr);
    vk.vkCmdBindDescriptorSets(batch.commands, VK_PIPELINE_BIND_POINT_COMPUTE, kernel.layout, 0, 1, &set, 0,
                               nullptr);
  } else {
    vk.vkCmdPushDescriptorSetKHR(batch.commands, VK_PIPELINE_BIND_POINT_COMPUTE, kernel.layout, 0,
                                 static_cast<uint32_t>(n), writes.data());
  }
}

double Stream::estimate_ms(Cost c) const {
  return c.flops / (gflops_ * 1e6) + c.bytes / (gbs_ * 1e6) + 0.002;
}

void Stream::issue(Batch& batch, const Kernel& kernel, Groups groups, Cost cost) {
  device_.vk().vkCmdBindPipeline(batch.commands, VK_PIPELINE_BIND_POINT_COMPUTE, kernel.pipeline);
  device_.vk().vkCmdDispatchBase(batch.commands, 0, 0, 0, groups.x, groups.y, groups.z);
  batch.estimated_ms += estimate_ms(cost);
}

void Stream::dispatch(const Kernel& kernel, std::span<const BufferRange> bindings,
                      std::span<const std::byte> args, Groups groups, Cost cost) {
  const auto& declared = kernel.interface.bindings;
  if (bindings.size() != declared.size() || bindings.size() > 16 ||
      args.size() != kernel.interface.push_bytes) {
    throw Error(ErrorCode::internal,
                fmt::format("{}: {} bindings and {} argument bytes given, {} and {} declared", kernel.name,
                            bindings.size(), args.size(), declared.size(), kernel.interface.push_bytes));
  }
  const Caps& caps = device_.caps();
  if (groups.x > caps.max_group_count[0] || groups.y > caps.max_group_count[1] ||
      groups.z > caps.max_group_count[2]) {
    throw Error(ErrorCode::unsupported, fmt::format("{}: {}x{}x{} workgroups are more than the device allows",
                                                    kernel.name, groups.x, groups.y, groups.z));
  }
  std::array<Touched, 16> next;
  for (size_t i = 0; i < bindings.size(); ++i) {
    const BufferRange& r = bindings[i];
    const bool storage = declared[i].type == KernelBinding::Type::storage;
    if (storage && r.size > caps.max_storage_buffer_range) {
      throw Error(
          ErrorCode::unsupported,
          fmt::format("{}: binding {} has {} bytes, the device binds at most {} (maxStorageBufferRange)",
                      kernel.name, i, r.size, caps.max_storage_buffer_range));
    }
    if (!storage && r.size / 16 > caps.max_texel_elements) {
      throw Error(ErrorCode::unsupported, fmt::format("{}: binding {} has {} texels, the device allows {}",
                                                      kernel.name, i, r.size / 16, caps.max_texel_elements));
    }
    if (!storage) device_.pool().limit_views(r.buffer->block());
    const uint64_t begin = r.buffer->offset() + r.offset;
    next[i] = {r.buffer->handle(), begin, begin + (r.size + 15) / 16 * 16, storage && declared[i].written};
  }
  Batch* batch = &recording();
  const bool full = (batch->descriptors && batch->descriptor_sets + 1 >= kSetsPerPool) ||
                    (device_.profiler().enabled() && batch->timed.size() + 3 >= kQueries);
  if (full || (batch->estimated_ms > 0 && batch->estimated_ms + estimate_ms(cost) > slice_ms_)) {
    submit();
    batch = &recording();
  }
  guard({next.data(), bindings.size()});
  bind(*batch, kernel, bindings);
  if (!args.empty()) {
    device_.vk().vkCmdPushConstants(batch->commands, kernel.layout, VK_SHADER_STAGE_COMPUTE_BIT, 0,
                                    static_cast<uint32_t>(args.size()), args.data());
  }
  issue(*batch, kernel, groups, cost);
  if (device_.profiler().enabled() && batch->queries) {
    batch->timed.push_back({&kernel, cost});
    device_.vk().vkCmdWriteTimestamp(batch->commands, VK_PIPELINE_STAGE_BOTTOM_OF_PIPE_BIT, batch->queries,
                                     static_cast<uint32_t>(batch->timed.size()));
  }
  ++counters_.dispatches;
  counters_.flops += cost.flops;
  counters_.bytes += cost.bytes;
}

void Stream::copy(const BufferRange& dst, const BufferRange& src) {
  if (src.size == 0) return;
  Batch& batch = recording();
  const VkBufferCopy region{src.buffer->offset() + src.offset, dst.buffer->offset() + dst.offset, src.size};
  const std::array<Touched, 2> next{
      {{src.buffer->handle(), region.srcOffset, region.srcOffset + src.size, false},
       {dst.buffer->handle(), region.dstOffset, region.dstOffset + src.size, true}}};
  guard(next);
  device_.vk().vkCmdCopyBuffer(batch.commands, src.buffer->handle(), dst.buffer->handle(), 1, &region);
  batch.estimated_ms += estimate_ms({0, 2.0 * static_cast<double>(src.size)});
  ++counters_.copies;
}

void Stream::fill(const BufferRange& dst, uint32_t word) {
  if (dst.size == 0) return;
  Batch& batch = recording();
  const uint64_t begin = dst.buffer->offset() + dst.offset, size = (dst.size + 3) / 4 * 4;
  const std::array<Touched, 1> next{{{dst.buffer->handle(), begin, begin + size, true}}};
  guard(next);
  device_.vk().vkCmdFillBuffer(batch.commands, dst.buffer->handle(), begin, size, word);
  batch.estimated_ms += estimate_ms({0, static_cast<double>(size)});
}

void Stream::upload(const BufferRange& dst, std::span<const std::byte> src) {
  for (size_t at = 0; at < src.size();) {
    const size_t n = std::min<size_t>(src.size() - at, kMaxStagingInFlight);
    BufferPtr staging = device_.pool().allocate_host(n);
    std::memcpy(staging->mapped(), src.data() + at, n);
    copy({dst.buffer, dst.offset + at, n}, {staging, 0, n});
    recording().keep.push_back(std::move(staging));
    at += n;
    if (at < src.size()) sync();
  }
  ++counters_.uploads;
}

void Stream::download(std::span<std::byte> dst, const BufferRange& src) {
  for (size_t at = 0; at < dst.size();) {
    const size_t n = std::min<size_t>(dst.size() - at, kMaxStagingInFlight);
    const BufferPtr staging = device_.pool().allocate_host(n);
    copy({staging, 0, n}, {src.buffer, src.offset + at, n});
    // The host's read of the copy must be ordered too.
    VkMemoryBarrier barrier{};
    barrier.sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER;
    barrier.srcAccessMask = VK_ACCESS_TRANSFER_WRITE_BIT;
    barrier.dstAccessMask = VK_ACCESS_HOST_READ_BIT;
    device_.vk().vkCmdPipelineBarrier(current_.commands, VK_PIPELINE_STAGE_TRANSFER_BIT,
                                      VK_PIPELINE_STAGE_HOST_BIT, 0, 1, &barrier, 0, nullptr, 0, nullptr);
    sync();
    std::memcpy(dst.data() + at, staging->mapped(), n);
    at += n;
  }
  ++counters_.downloads;
}

uint64_t Stream::submit() {
  if (!open_) return next_value_ - 1;
  const DeviceFunctions& vk = device_.vk();
  if (current_.queries && current_.timed.empty()) {
    vk.vkCmdWriteTimestamp(current_.commands, VK_PIPELINE_STAGE_BOTTOM_OF_PIPE_BIT, current_.queries, 1);
  }
  check(vk.vkEndCommandBuffer(current_.commands), "vkEndCommandBuffer");
  current_.value = next_value_++;
  VkTimelineSemaphoreSubmitInfo timeline{};
  timeline.sType = VK_STRUCTURE_TYPE_TIMELINE_SEMAPHORE_SUBMIT_INFO;
  timeline.signalSemaphoreValueCount = 1;
  timeline.pSignalSemaphoreValues = &current_.value;
  VkSubmitInfo info{};
  info.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO;
  info.pNext = &timeline;
  info.commandBufferCount = 1;
  info.pCommandBuffers = &current_.commands;
  info.signalSemaphoreCount = 1;
  info.pSignalSemaphores = &timeline_;
  VkResult result;
  {
    const auto lock = device_.lock_queue();
    result = vk.vkQueueSubmit(device_.queue(), 1, &info, VK_NULL_HANDLE);
  }
  lost_ = lost_ || result == VK_ERROR_DEVICE_LOST;
  check(result, "vkQueueSubmit");
  ++counters_.submits;
  const uint64_t value = current_.value;
  in_flight_.push_back(std::move(current_));
  open_ = false;
  if (in_flight_.size() > kMaxInFlight) wait(in_flight_.front().value);
  return value;
}

void Stream::wait(uint64_t value) {
  if (value > done_) {
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

// Reads the batch's timestamps, calibrates the estimate, and makes the batch ready for reuse.
void Stream::retire(Batch& b) {
  const DeviceFunctions& vk = device_.vk();
  const uint32_t n = 1 + std::max<uint32_t>(1, static_cast<uint32_t>(b.timed.size()));
  std::vector<uint64_t> ticks(n);
  if (b.queries && vk.vkGetQueryPoolResults(device_.handle(), b.queries, 0, n, n * 8, ticks.data(), 8,
                                            VK_QUERY_RESULT_64_BIT) == VK_SUCCESS) {
    const double ms = device_.caps().timestamp_period * 1e-6;
    for (size_t i = 0; i < b.timed.size(); ++i) {
      device_.profiler().add(b.timed[i].kernel->name, static_cast<double>(ticks[i + 1] - ticks[i]) * ms,
                             b.timed[i].cost.flops, b.timed[i].cost.bytes);
    }
    const double actual = static_cast<double>(ticks[n - 1] - ticks[0]) * ms;
    if (b.estimated_ms > 1 && actual > 0) {
      const double ratio = std::clamp(b.estimated_ms / actual, 0.5, 2.0), scale = 1 + 0.1 * (ratio - 1);
      gflops_ = std::max(gflops_ * scale, 0.1);
      gbs_ = std::max(gbs_ * scale, 0.02);
    }
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
