// What a stream records: dispatches, copies, fills, and the transfers made of them.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <utility>

#include "vk/device.h"
#include "vk/error.h"
#include "vk/stream.h"
#include "vk/stream_limits.h"

namespace vkflux {
namespace {

constexpr uint64_t kWaitedFor = 64ull << 10, kUploadPiece = 16ull << 20, kDownloadPiece = 64ull << 20;

// Vector accesses may touch the padding behind the last element: ranges are rounded up to 16 bytes, which
// every buffer has room for.
uint64_t padded(uint64_t bytes) {
  return (bytes + 15) / 16 * 16;
}

Hazards::Range touched(const BufferRange& r, uint64_t size, bool written) {
  const uint64_t begin = r.buffer->offset() + r.offset;
  return {r.buffer->handle(), begin, begin + size, written};
}

void check_call(const Caps& caps, const Kernel& kernel, size_t bindings, size_t arg_bytes, Groups groups) {
  const size_t declared = kernel.interface.bindings.size();
  if (bindings != declared || bindings > 16 || arg_bytes != kernel.interface.push_bytes) {
    throw Error(ErrorCode::internal,
                fmt::format("{}: {} bindings and {} argument bytes given, {} and {} declared", kernel.name,
                            bindings, arg_bytes, declared, kernel.interface.push_bytes));
  }
  if (groups.x > caps.max_group_count[0] || groups.y > caps.max_group_count[1] ||
      groups.z > caps.max_group_count[2]) {
    throw Error(ErrorCode::unsupported, fmt::format("{}: {}x{}x{} workgroups are more than the device allows",
                                                    kernel.name, groups.x, groups.y, groups.z));
  }
}

void check_size(const Caps& caps, std::string_view kernel, size_t i, bool storage, uint64_t bytes) {
  if (storage && bytes > caps.max_storage_buffer_range) {
    throw Error(
        ErrorCode::unsupported,
        fmt::format("{}: binding {} has {} bytes, the device binds at most {} (maxStorageBufferRange)",
                    kernel, i, bytes, caps.max_storage_buffer_range));
  }
  if (!storage && bytes / 16 > caps.max_texel_elements) {
    throw Error(ErrorCode::unsupported, fmt::format("{}: binding {} has {} texels, the device allows {}",
                                                    kernel, i, bytes / 16, caps.max_texel_elements));
  }
}

// Equal parts that cost no more than `most`.
uint64_t parts_within(Cost cost, Cost most) {
  const double parts = std::ceil(std::max(cost.flops / most.flops, cost.bytes / most.bytes));
  return parts > 1 ? static_cast<uint64_t>(std::min(parts, 1e9)) : 1;
}

}  // namespace

void each_part(Groups groups, uint64_t parts, const std::function<void(Groups, Groups)>& f) {
  const auto cut = [](uint32_t n, uint64_t wanted) {
    return static_cast<uint32_t>(std::clamp<uint64_t>(wanted, 1, std::max(n, 1u)));
  };
  const auto rest = [](uint64_t wanted, uint32_t had) { return (wanted + had - 1) / had; };
  const uint32_t nz = cut(groups.z, parts), ny = cut(groups.y, rest(parts, nz)),
                 nx = cut(groups.x, rest(rest(parts, nz), ny));
  const auto begin = [](uint32_t n, uint32_t ranges, uint32_t i) {
    return static_cast<uint32_t>(uint64_t{n} * i / ranges);
  };
  for (uint32_t z = 0; z < nz; ++z) {
    for (uint32_t y = 0; y < ny; ++y) {
      for (uint32_t x = 0; x < nx; ++x) {
        const Groups first{begin(groups.x, nx, x), begin(groups.y, ny, y), begin(groups.z, nz, z)};
        f(first, {begin(groups.x, nx, x + 1) - first.x, begin(groups.y, ny, y + 1) - first.y,
                  begin(groups.z, nz, z + 1) - first.z});
      }
    }
  }
}

VkCommandBuffer Stream::commands() {
  return target_ ? target_->pieces_.back().commands : recording().commands;
}

// A new submit, when the open one would take too long or has no room for one more command.
void Stream::make_room(double ms) {
  const Batch& batch = recording();
  const double waiting = target_ ? target_->pieces_.back().estimated_ms : batch.estimated_ms;
  const bool full = (batch.descriptors && batch.descriptor_sets + 1 >= kSetsPerPool) ||
                    (device_.profiler().enabled() && batch.timed.size() + 3 >= kQueries);
  if (full || (waiting > 0 && waiting + ms > slice_ms_)) submit();
}

void Stream::barrier(VkCommandBuffer commands) {
  VkMemoryBarrier barrier{};
  barrier.sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER;
  barrier.srcAccessMask = VK_ACCESS_SHADER_WRITE_BIT | VK_ACCESS_TRANSFER_WRITE_BIT;
  barrier.dstAccessMask = VK_ACCESS_SHADER_READ_BIT | VK_ACCESS_SHADER_WRITE_BIT |
                          VK_ACCESS_TRANSFER_READ_BIT | VK_ACCESS_TRANSFER_WRITE_BIT;
  constexpr VkPipelineStageFlags kStages =
      VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT | VK_PIPELINE_STAGE_TRANSFER_BIT;
  device_.vk().vkCmdPipelineBarrier(commands, kStages, kStages, 0, 1, &barrier, 0, nullptr, 0, nullptr);
  hazards_.clear();
  ++counters_.barriers;
}

void Stream::guard(std::span<const Hazards::Range> next) {
  if (hazards_.conflict(next)) barrier(commands());
  hazards_.add(next);
}

VkDescriptorSet Stream::allocate_set(const Kernel& kernel) {
  Batch& batch = recording();
  VkDescriptorSetAllocateInfo alloc{};
  alloc.sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_ALLOCATE_INFO;
  alloc.descriptorPool = batch.descriptors;
  alloc.descriptorSetCount = 1;
  alloc.pSetLayouts = &kernel.set_layout;
  VkDescriptorSet set = VK_NULL_HANDLE;
  check(device_.vk().vkAllocateDescriptorSets(device_.handle(), &alloc, &set), "vkAllocateDescriptorSets");
  ++batch.descriptor_sets;
  return set;
}

void Stream::bind(const Kernel& kernel, std::span<const Binding> bindings) {
  const auto n = static_cast<uint32_t>(bindings.size());
  std::array<VkDescriptorBufferInfo, 16> buffers;
  std::array<VkBufferView, 16> views;
  std::array<VkWriteDescriptorSet, 16> writes;
  const VkDescriptorSet set = device_.caps().push_descriptor ? VK_NULL_HANDLE : allocate_set(kernel);
  for (size_t i = 0; i < n; ++i) {
    const KernelBinding& b = kernel.interface.bindings[i];
    const Binding& r = bindings[i];
    const uint64_t offset = r.buffer->offset() + r.offset;
    writes[i] = VkWriteDescriptorSet{};
    writes[i].sType = VK_STRUCTURE_TYPE_WRITE_DESCRIPTOR_SET;
    writes[i].dstSet = set;
    writes[i].dstBinding = b.binding;
    writes[i].descriptorCount = 1;
    if (b.type == KernelBinding::Type::storage) {
      writes[i].descriptorType = VK_DESCRIPTOR_TYPE_STORAGE_BUFFER;
      buffers[i] = {r.buffer->handle(), offset, padded(r.size)};
      writes[i].pBufferInfo = &buffers[i];
    } else {
      writes[i].descriptorType = VK_DESCRIPTOR_TYPE_UNIFORM_TEXEL_BUFFER;
      views[i] = device_.pool().view(r.buffer->block(), offset, padded(r.size), b.format);
      writes[i].pTexelBufferView = &views[i];
    }
  }
  const DeviceFunctions& vk = device_.vk();
  if (set) {
    vk.vkUpdateDescriptorSets(device_.handle(), n, writes.data(), 0, nullptr);
    vk.vkCmdBindDescriptorSets(commands(), VK_PIPELINE_BIND_POINT_COMPUTE, kernel.layout, 0, 1, &set, 0,
                               nullptr);
  } else {
    vk.vkCmdPushDescriptorSetKHR(commands(), VK_PIPELINE_BIND_POINT_COMPUTE, kernel.layout, 0, n,
                                 writes.data());
  }
}

void Stream::issued(std::string_view name, Cost cost) {
  const double ms = estimate_ms(cost);
  (target_ ? target_->pieces_.back().estimated_ms : current_.estimated_ms) += ms;
  const Profiler& profiler = device_.profiler();
  if (!profiler.enabled() || !current_.queries) return;
  current_.timed.push_back({name, profiler.scope(), cost});
  device_.vk().vkCmdWriteTimestamp(current_.commands, VK_PIPELINE_STAGE_BOTTOM_OF_PIPE_BIT, current_.queries,
                                   static_cast<uint32_t>(current_.timed.size()));
}

void Stream::keep(Buffer* buffer) {
  if (!target_ || buffer->block().region) return;
  if (const auto [it, made] = target_->keep_.try_emplace(buffer); made)
    it->second = buffer->shared_from_this();
}

void Stream::dispatch(const Kernel& kernel, std::span<const Binding> bindings,
                      std::span<const std::byte> args, Groups groups, Cost cost) {
  const Caps& caps = device_.caps();
  check_call(caps, kernel, bindings.size(), args.size(), groups);
  std::array<Hazards::Range, 16> next;
  for (size_t i = 0; i < bindings.size(); ++i) {
    const Binding& r = bindings[i];
    const KernelBinding& declared = kernel.interface.bindings[i];
    const bool storage = declared.type == KernelBinding::Type::storage;
    check_size(caps, kernel.name, i, storage, r.size);
    if (!storage) device_.pool().limit_views(r.buffer->block());
    const uint64_t begin = r.buffer->offset() + r.offset;
    next[i] = {r.buffer->handle(), begin, begin + padded(r.size), storage && declared.written};
    keep(r.buffer);
  }
  const uint64_t parts = kernel.interface.counts_groups ? 1 : parts_within(cost, dispatch_limit_);
  bool guarded = false;  // workgroups of a dispatch never wait for each other
  const auto record = [&](Groups first, Groups count) {
    const double share = static_cast<double>(count.count()) / static_cast<double>(groups.count());
    const Cost part{cost.flops * share, cost.bytes * share};
    make_room(estimate_ms(part));
    if (!std::exchange(guarded, true)) guard({next.data(), bindings.size()});
    dispatch_part(kernel, bindings, args, first, count);
    issued(kernel.name, part);
  };
  each_part(groups, parts, std::ref(record));
  counters_.flops += cost.flops;
  counters_.bytes += cost.bytes;
}

void Stream::dispatch_part(const Kernel& kernel, std::span<const Binding> bindings,
                           std::span<const std::byte> args, Groups first, Groups count) {
  bind(kernel, bindings);
  const VkCommandBuffer to = commands();
  const DeviceFunctions& vk = device_.vk();
  if (!args.empty()) {
    vk.vkCmdPushConstants(to, kernel.layout, VK_SHADER_STAGE_COMPUTE_BIT, 0,
                          static_cast<uint32_t>(args.size()), args.data());
  }
  vk.vkCmdBindPipeline(to, VK_PIPELINE_BIND_POINT_COMPUTE, kernel.pipeline);
  vk.vkCmdDispatchBase(to, first.x, first.y, first.z, count.x, count.y, count.z);
  ++counters_.dispatches;
}

void Stream::rehearse(std::string_view kernel, const KernelInterface& interface,
                      std::span<const Binding> bindings) {
  for (size_t i = 0; i < bindings.size() && i < interface.bindings.size(); ++i) {
    const bool storage = interface.bindings[i].type == KernelBinding::Type::storage;
    check_size(device_.caps(), kernel, i, storage, bindings[i].size);
    keep(bindings[i].buffer);
  }
}

void Stream::copy(const BufferRange& dst, const BufferRange& src) {
  if (src.size == 0) return;
  if (!real_) {
    keep(src.buffer.get());
    return keep(dst.buffer.get());
  }
  make_room(0);
  const VkBufferCopy region{src.buffer->offset() + src.offset, dst.buffer->offset() + dst.offset, src.size};
  guard(std::array{touched(src, src.size, false), touched(dst, src.size, true)});
  device_.vk().vkCmdCopyBuffer(commands(), src.buffer->handle(), dst.buffer->handle(), 1, &region);
  keep(src.buffer.get());
  keep(dst.buffer.get());
  issued("copy", {0, 2.0 * static_cast<double>(src.size)});
  ++counters_.copies;
}

void Stream::fill(const BufferRange& dst, uint32_t word) {
  if (dst.size == 0) return;
  if (!real_) return keep(dst.buffer.get());
  make_room(0);
  const uint64_t size = (dst.size + 3) / 4 * 4;
  const Hazards::Range next = touched(dst, size, true);
  guard({&next, 1});
  device_.vk().vkCmdFillBuffer(commands(), dst.buffer->handle(), next.begin, size, word);
  keep(dst.buffer.get());
  issued("fill", {0, static_cast<double>(size)});
}

void Stream::upload(const BufferRange& dst, const Fill& fill) {
  if (target_) target_->host_data_ = true;
  ++counters_.uploads;
  if (dst.size == 0) return;
  if (!real_) {
    if (host_reads_memory(device_) && dst.size >= kWaitedFor) return;
    for (uint64_t at = 0; at < dst.size; at += kUploadPiece) stage(std::min(dst.size - at, kUploadPiece));
    return;
  }
  void* memory = dst.buffer->mapped();
  // Waiting costs a device that is the host little, and staging memory for something large much.
  if (memory && !target_ && dst.size >= kWaitedFor && host_reads_memory(device_)) sync();
  if (memory && idle()) {
    fill(0, {static_cast<std::byte*>(memory) + dst.offset, dst.size});
    return;
  }
  for (uint64_t at = 0; at < dst.size;) {
    const uint64_t n = std::min(dst.size - at, kUploadPiece);
    const BufferPtr staging = device_.pool().allocate_host(n);
    fill(at, {static_cast<std::byte*>(staging->mapped()), n});
    copy({dst.buffer, dst.offset + at, n}, {staging, 0, n});
    if (!target_) recording().keep.push_back(staging);
    at += n;
    if (at < dst.size) submit();  // which also bounds the staging memory in use
  }
}

void Stream::upload(const BufferRange& dst, std::span<const std::byte> src) {
  upload({dst.buffer, dst.offset, src.size()},
         [&](uint64_t at, std::span<std::byte> piece) { std::memcpy(piece.data(), &src[at], piece.size()); });
}

// Staging memory of an upload that is rehearsed. As many pieces live as a real stream has batches under way.
BufferPtr Stream::stage(uint64_t bytes) {
  constexpr size_t kUnderWay = 4;
  if (staged_.size() == kUnderWay) staged_.pop_front();
  staged_.push_back(device_.pool().allocate_host(bytes));
  return staged_.back();
}

Download Stream::begin_download(const BufferRange& src) {
  if (target_) target_->host_data_ = true;
  Download d{device_.pool().allocate_host(src.size), src.size, 0};
  if (!real_) return d;
  copy({d.staging, 0, src.size}, src);
  // The host's read of the copy must be ordered too.
  VkMemoryBarrier barrier{};
  barrier.sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER;
  barrier.srcAccessMask = VK_ACCESS_TRANSFER_WRITE_BIT;
  barrier.dstAccessMask = VK_ACCESS_HOST_READ_BIT;
  device_.vk().vkCmdPipelineBarrier(commands(), VK_PIPELINE_STAGE_TRANSFER_BIT, VK_PIPELINE_STAGE_HOST_BIT, 0,
                                    1, &barrier, 0, nullptr, 0, nullptr);
  if (!target_) recording().keep.push_back(d.staging);
  d.value = target_ ? submit() : next_value_;
  ++counters_.downloads;
  return d;
}

void Stream::finish(const Download& download, std::span<std::byte> dst) {
  wait(download.value);
  if (!real_) return std::fill(dst.begin(), dst.end(), std::byte{0});
  if (!dst.empty())
    std::memcpy(dst.data(), download.staging->mapped(), std::min<uint64_t>(download.size, dst.size()));
}

void Stream::download(std::span<std::byte> dst, const BufferRange& src) {
  if (dst.empty()) return;
  if (!real_ && host_reads_memory(device_)) return std::fill(dst.begin(), dst.end(), std::byte{0});
  if (const void* memory = src.buffer->mapped(); memory && !target_ && host_reads_memory(device_)) {
    sync();
    ++counters_.downloads;
    std::memcpy(dst.data(), static_cast<const std::byte*>(memory) + src.offset, dst.size());
    return;
  }
  for (size_t at = 0; at < dst.size();) {
    const size_t n = std::min<size_t>(dst.size() - at, kDownloadPiece);
    finish(begin_download({src.buffer, src.offset + at, n}), dst.subspan(at, n));
    at += n;
  }
}

void Stream::begin(Recording& recording) {
  if (target_) throw Error(ErrorCode::internal, "a recording has begun inside of another one");
  if (device_.profiler().enabled())
    throw Error(ErrorCode::internal, "recorded work has no timestamps: switch the profiler off");
  if (real_) {
    this->recording();
    if (!hazards_.empty()) barrier(current_.commands);
  }
  recording.begin_piece();
  recording.views_generation_ = device_.pool().views_generation();
  before_ = counters_;
  target_ = &recording;
}

// complete: the work was recorded to its end.
void Stream::end(bool complete) {
  Recording& r = *std::exchange(target_, nullptr);
  r.end_piece();
  run_piece(r, r.pieces_.back());
  r.tail_ = hazards_;
  r.dispatches_ = counters_.dispatches - before_.dispatches;
  r.barriers_ = counters_.barriers - before_.barriers;
  r.copies_ = counters_.copies - before_.copies;
  r.cost_ = {counters_.flops - before_.flops, counters_.bytes - before_.bytes};
  r.complete_ = complete;
}

void Stream::run_piece(Recording& recording, const Recording::Piece& piece) {
  if (!real_) return;
  Batch* batch = &this->recording();
  if (batch->estimated_ms > 0 && batch->estimated_ms + piece.estimated_ms > slice_ms_) {
    submit_open();
    batch = &this->recording();
  }
  device_.vk().vkCmdExecuteCommands(batch->commands, 1, &piece.commands);
  batch->estimated_ms += piece.estimated_ms;
  recording.last_use_ = next_value_;
}

void Stream::replay(Recording& recording) {
  if (!recording.replayable() || target_)
    throw Error(ErrorCode::internal, "this recording can't be replayed now");
  if (!real_) return;
  this->recording();
  if (!hazards_.empty()) barrier(current_.commands);
  for (const Recording::Piece& piece : recording.pieces_) run_piece(recording, piece);
  hazards_ = recording.tail_;
  counters_.dispatches += recording.dispatches_;
  counters_.barriers += recording.barriers_;
  counters_.copies += recording.copies_;
  counters_.flops += recording.cost_.flops;
  counters_.bytes += recording.cost_.bytes;
  ++counters_.replays;
}

}  // namespace vkflux
