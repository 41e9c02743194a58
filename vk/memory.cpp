#include "vk/memory.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "vk/device.h"
#include "vk/error.h"

namespace vkflux {
namespace {

constexpr uint64_t kBlockBytes = 64ull << 20;
constexpr uint64_t kRegionBlockBytes = 16ull << 20, kLeastBlockBytes = 1ull << 20;

uint64_t round_up(uint64_t n, uint64_t to) {
  return (n + to - 1) / to * to;
}

}  // namespace

std::string_view name(MemoryClass c) {
  constexpr std::string_view names[] = {"weights", "activations", "scratch", "staging"};
  return names[static_cast<size_t>(c)];
}

Buffer::~Buffer() {
  if (!whole_) pool_.give_back(*this);
}
VkBuffer Buffer::handle() const {
  return block_.buffer;
}
void* Buffer::mapped() const {
  return block_.mapped ? static_cast<char*>(block_.mapped) + offset_ : nullptr;
}

Pool::Pool(Device& device, uint64_t budget, bool real) : device_(device), budget_(budget), real_(real) {}

Pool::~Pool() {
  for (auto& b : blocks_) destroy(*b);
}

uint32_t Pool::memory_type(uint32_t allowed, VkMemoryPropertyFlags wanted,
                           VkMemoryPropertyFlags needed) const {
  const VkPhysicalDeviceMemoryProperties& m = device_.memory_properties();
  for (VkMemoryPropertyFlags flags : {wanted, needed}) {
    for (uint32_t i = 0; i < m.memoryTypeCount; ++i) {
      if ((allowed >> i & 1) && (m.memoryTypes[i].propertyFlags & flags) == flags) return i;
    }
  }
  throw Error(ErrorCode::unsupported, "no memory type of the device fits a storage buffer");
}

Block* Pool::add_block(uint64_t bytes, bool host, uint32_t region) {
  if (budget_ && usage_.reserved + bytes > budget_) return nullptr;
  if (bytes > device_.caps().max_allocation) return nullptr;
  auto block = std::make_unique<Block>();
  block->size = bytes;
  block->host = host;
  block->region = region;
  if (real_ && !bind_memory(*block)) return nullptr;
  block->free = {{0, bytes}};
  ++counters_.blocks;
  usage_.reserved += bytes;
  usage_.peak_reserved = std::max(usage_.peak_reserved, usage_.reserved);
  blocks_.push_back(std::move(block));
  return blocks_.back().get();
}

// False: the device has no more memory.
bool Pool::bind_memory(Block& block) {
  const DeviceFunctions& vk = device_.vk();
  VkBufferCreateInfo info{};
  info.sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO;
  info.size = block.size;
  info.usage = VK_BUFFER_USAGE_STORAGE_BUFFER_BIT | VK_BUFFER_USAGE_UNIFORM_TEXEL_BUFFER_BIT |
               VK_BUFFER_USAGE_TRANSFER_SRC_BIT | VK_BUFFER_USAGE_TRANSFER_DST_BIT;
  const std::array families{device_.queue_family(), device_.transfer_family()};
  if (device_.transfer_queue()) {
    info.sharingMode = VK_SHARING_MODE_CONCURRENT;
    info.queueFamilyIndexCount = families.size();
    info.pQueueFamilyIndices = families.data();
  }
  if (vk.vkCreateBuffer(device_.handle(), &info, nullptr, &block.buffer) != VK_SUCCESS) return false;
  VkMemoryRequirements need{};
  vk.vkGetBufferMemoryRequirements(device_.handle(), block.buffer, &need);
  constexpr VkMemoryPropertyFlags kHost =
      VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT;
  VkMemoryAllocateInfo alloc{};
  alloc.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO;
  alloc.allocationSize = need.size;
  alloc.memoryTypeIndex =
      block.host ? memory_type(need.memoryTypeBits, kHost | VK_MEMORY_PROPERTY_HOST_CACHED_BIT, kHost)
                 : memory_type(need.memoryTypeBits, VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT, 0);
  if (vk.vkAllocateMemory(device_.handle(), &alloc, nullptr, &block.memory) != VK_SUCCESS) {
    vk.vkDestroyBuffer(device_.handle(), block.buffer, nullptr);
    return false;
  }
  check(vk.vkBindBufferMemory(device_.handle(), block.buffer, block.memory, 0), "vkBindBufferMemory");
  // Of a CPU or an integrated GPU, the device's memory is the host's, too.
  const VkMemoryType& type = device_.memory_properties().memoryTypes[alloc.memoryTypeIndex];
  if ((type.propertyFlags & kHost) == kHost) {
    const VkResult mapped =
        vk.vkMapMemory(device_.handle(), block.memory, 0, VK_WHOLE_SIZE, 0, &block.mapped);
    if (block.host) check(mapped, "vkMapMemory");
    if (mapped != VK_SUCCESS) block.mapped = nullptr;
  }
  return true;
}

void Pool::destroy(Block& block) {
  usage_.reserved -= block.size;
  if (!real_) return;
  const DeviceFunctions& vk = device_.vk();
  for (auto& [key, view] : block.views) vk.vkDestroyBufferView(device_.handle(), view, nullptr);
  vk.vkDestroyBuffer(device_.handle(), block.buffer, nullptr);
  vk.vkFreeMemory(device_.handle(), block.memory, nullptr);
}

BufferPtr Pool::take_from(Block& block, uint64_t bytes, uint64_t reserved, MemoryClass cls) {
  const auto it = std::find_if(block.free.begin(), block.free.end(),
                               [&](const auto& range) { return range.second >= reserved; });
  if (it == block.free.end()) return nullptr;
  const uint64_t offset = it->first;
  if (it->second == reserved) {
    block.free.erase(it);
  } else {
    *it = {offset + reserved, it->second - reserved};
  }
  block.used += reserved;
  usage_.used += reserved;
  usage_.by_class[static_cast<size_t>(cls)] += reserved;
  usage_.peak = std::max(usage_.peak, usage_.used);
  ++counters_.allocations;
  return std::make_shared<Buffer>(*this, block, offset, bytes, reserved, cls);
}

BufferPtr Pool::take(uint64_t bytes, MemoryClass cls, bool host) {
  // Every binding offset must be aligned; 16 more bytes let vector loads round a range up.
  const uint64_t reserved = round_up(std::max<uint64_t>(bytes, 16), range_alignment());
  const bool lasting = cls == MemoryClass::weights || cls == MemoryClass::staging;
  const uint32_t region = lasting ? 0 : region_;
  // Of a small budget blocks mustn't take large parts.
  const uint64_t most = region ? kRegionBlockBytes : kBlockBytes,
                 block_bytes = budget_ ? std::clamp(budget_ / 64, kLeastBlockBytes, most) : most;
  for (int attempt = 0; attempt < 2; ++attempt) {
    for (auto& block : blocks_) {
      if (block->host != host || block->region != region || block->size - block->used < reserved) continue;
      if (auto b = take_from(*block, bytes, reserved, cls)) return b;
    }
    Block* block = add_block(std::max(block_bytes, reserved), host, region);
    if (!block && reserved < block_bytes) block = add_block(reserved, host, region);
    if (block) return take_from(*block, bytes, reserved, cls);
    if (attempt == 0) trim();
  }
  throw Error(ErrorCode::out_of_device_memory,
              fmt::format("{} for {:.1f} MiB of {}\n{}", host ? "no host-visible memory" : "no device memory",
                          static_cast<double>(bytes) / (1 << 20), name(cls), usage_table()));
}

BufferPtr Pool::allocate(uint64_t bytes, MemoryClass cls) {
  return take(bytes, cls, false);
}
BufferPtr Pool::allocate_host(uint64_t bytes) {
  return take(bytes, MemoryClass::staging, true);
}

BufferPtr Pool::part(const BufferPtr& whole, uint64_t offset, uint64_t size) {
  return std::make_shared<Buffer>(*this, whole->block_, whole->offset_ + offset, size, 0, whole->class_,
                                  whole);
}

uint64_t Pool::range_alignment() const {
  return std::max<uint64_t>(device_.caps().buffer_alignment, 256);
}

void Pool::reset_peak() {
  usage_.peak = usage_.used;
  usage_.peak_reserved = usage_.reserved;
}

void Pool::give_back(const Buffer& buffer) {
  Block& block = buffer.block_;
  const uint64_t offset = buffer.offset_, size = buffer.reserved_;
  auto next = std::lower_bound(block.free.begin(), block.free.end(), std::pair{offset, uint64_t{0}});
  const bool joins_next = next != block.free.end() && offset + size == next->first;
  const bool joins_previous =
      next != block.free.begin() && std::prev(next)->first + std::prev(next)->second == offset;
  if (joins_previous) {
    std::prev(next)->second += size + (joins_next ? next->second : 0);
    if (joins_next) block.free.erase(next);
  } else if (joins_next) {
    *next = {offset, size + next->second};
  } else {
    block.free.insert(next, {offset, size});
  }
  block.used -= size;
  usage_.used -= size;
  usage_.by_class[static_cast<size_t>(buffer.class_)] -= size;
}

VkBufferView Pool::view(Block& block, uint64_t offset, uint64_t size, VkFormat format) {
  const auto [it, made] = block.views.try_emplace({offset, size, format}, VK_NULL_HANDLE);
  if (!made) return it->second;
  VkBufferViewCreateInfo info{};
  info.sType = VK_STRUCTURE_TYPE_BUFFER_VIEW_CREATE_INFO;
  info.buffer = block.buffer;
  info.format = format;
  info.offset = offset;
  info.range = size;
  VkBufferView view = VK_NULL_HANDLE;
  const VkResult result = device_.vk().vkCreateBufferView(device_.handle(), &info, nullptr, &view);
  if (result != VK_SUCCESS) block.views.erase(it);
  check(result, "vkCreateBufferView");
  ++counters_.views;
  return it->second = view;
}

void Pool::limit_views(Block& block) {
  if (block.views.size() < max_views_) return;
  device_.stream().sync();
  for (auto& [k, v] : block.views) device_.vk().vkDestroyBufferView(device_.handle(), v, nullptr);
  block.views.clear();
  ++views_generation_;
}

void Pool::close_region(uint32_t region) {
  for (auto& block : blocks_) {
    if (block->region == region) block->region = 0;
  }
}

MemoryUsage Pool::region_usage(uint32_t region) const {
  MemoryUsage u;
  for (const auto& block : blocks_) {
    if (block->region != region) continue;
    u.reserved += block->size;
    u.used += block->used;
  }
  return u;
}

MemoryUsage Pool::usage() const {
  MemoryUsage u = usage_;
  u.budget = budget_;
  return u;
}

std::string Pool::usage_table() const {
  auto mib = [](uint64_t b) { return static_cast<double>(b) / (1 << 20); };
  std::string out;
  for (size_t i = 0; i < kMemoryClasses; ++i) {
    out += fmt::format("  {:<12}{:>10.1f} MiB\n", name(static_cast<MemoryClass>(i)), mib(usage_.by_class[i]));
  }
  out += fmt::format("  {:<12}{:>10.1f} MiB in blocks (peak in use {:.1f})", "all", mib(usage_.reserved),
                     mib(usage_.peak));
  if (budget_) out += fmt::format(", budget {:.1f} MiB", mib(budget_));
  return out;
}

void Pool::trim() {
  device_.stream().sync();
  std::erase_if(blocks_, [&](auto& block) {
    if (block->used || block->region) return false;
    destroy(*block);
    return true;
  });
}

}  // namespace vkflux
