// Device memory: large blocks, suballocation, a byte budget.
//
// A freed range may be handed out again at once: all work goes through one in-order Stream whose hazard
// tracking works on byte ranges, so a later use of the range waits for the earlier one.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "vk/functions.h"

namespace vkflux {

class Device;
class Pool;

enum class MemoryClass { weights, activations, scratch, staging };
inline constexpr size_t kMemoryClasses = 4;
std::string_view name(MemoryClass c);

struct Block;

/// A range of a VkBuffer; returns itself to its pool when the last owner lets go.
class Buffer : public std::enable_shared_from_this<Buffer> {
 public:
  Buffer(Pool& pool, Block& block, uint64_t offset, uint64_t size, uint64_t reserved, MemoryClass cls,
         std::shared_ptr<Buffer> whole = nullptr)
      : pool_(pool),
        block_(block),
        offset_(offset),
        size_(size),
        reserved_(reserved),
        class_(cls),
        whole_(std::move(whole)) {}
  ~Buffer();
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  VkBuffer handle() const;
  uint64_t offset() const { return offset_; }  // bytes within handle()
  uint64_t size() const { return size_; }
  void* mapped() const;  // host address; null where the host can't reach it
  Block& block() const { return block_; }

 private:
  friend class Pool;
  Pool& pool_;
  Block& block_;
  uint64_t offset_, size_, reserved_;
  MemoryClass class_;
  std::shared_ptr<Buffer> whole_;  // of a part: what gives the memory back
};

using BufferPtr = std::shared_ptr<Buffer>;

struct ViewKey {
  uint64_t offset, range;
  VkFormat format;
  bool operator==(const ViewKey&) const = default;
};
struct ViewKeyHash {
  size_t operator()(const ViewKey& k) const {
    uint64_t h = (k.offset >> 4) * 0x9e3779b97f4a7c15u;
    h = (h ^ (h >> 32) ^ (k.range >> 4)) * 0x9e3779b97f4a7c15u;
    return static_cast<size_t>(h ^ (h >> 29) ^ static_cast<uint64_t>(k.format));
  }
};

struct Block {
  VkBuffer buffer = VK_NULL_HANDLE;
  VkDeviceMemory memory = VK_NULL_HANDLE;
  uint64_t size = 0, used = 0;
  void* mapped = nullptr;
  bool host = false;
  uint32_t region = 0;                              // 0: for everybody
  std::vector<std::pair<uint64_t, uint64_t>> free;  // (offset, size), ascending, never adjacent
  std::unordered_map<ViewKey, VkBufferView, ViewKeyHash> views;
};

/// Bytes in use, per class and in all.
struct MemoryUsage {
  std::array<uint64_t, kMemoryClasses> by_class{};
  uint64_t used = 0, reserved = 0, budget = 0;
  uint64_t peak = 0, peak_reserved = 0;  // the most of `used` and `reserved` since the last reset_peak()
};

/// What a pool did since it was made. A steady step makes no blocks.
struct PoolCounters {
  uint64_t allocations = 0;  // ranges handed out
  uint64_t blocks = 0;       // vkAllocateMemory
  uint64_t views = 0;        // vkCreateBufferView
};

class Pool {
 public:
  /// budget: bytes that blocks may take in all; 0 = no limit of ours. real: false counts memory without
  /// taking any (vk/rehearsal.h).
  Pool(Device& device, uint64_t budget, bool real = true);
  ~Pool();

  /// Error out_of_device_memory with the table of owners when budget or device is exhausted (caches are
  /// released and the allocation tried once more first).
  BufferPtr allocate(uint64_t bytes, MemoryClass cls);
  /// Host-visible memory for uploads and readbacks.
  BufferPtr allocate_host(uint64_t bytes);
  /// Bytes [offset, offset + size) of a buffer as one of their own, which keeps it alive. offset: a multiple
  /// of range_alignment().
  BufferPtr part(const BufferPtr& whole, uint64_t offset, uint64_t size);
  /// Where ranges start, and what their lengths are rounded up to.
  uint64_t range_alignment() const;

  /// A cached texel view of bytes [offset, offset + size) of the block. Source: VK_FORMAT_R32G32B32A32_* and
  /// R32_*.
  VkBufferView view(Block& block, uint64_t offset, uint64_t size, VkFormat format);
  /// Keeps the cache of views bounded; waits for the device when it has to drop them, so call it before
  /// recording what uses new ones.
  void limit_views(Block& block);
  void set_max_views(size_t per_block) { max_views_ = per_block; }
  /// Changes whenever views were dropped: what was recorded with them can't run any more.
  uint64_t views_generation() const { return views_generation_; }

  /// Activations and scratch memory of one user, apart from everybody else's: its freed ranges are handed out
  /// again within the region alone. Recorded work needs that (vk/recording.h). The number names the region.
  uint32_t open_region() { return ++last_region_; }
  /// Its blocks become everybody's; what still uses them keeps its range.
  void close_region(uint32_t region);
  /// Bytes of its blocks, and of the ranges in use.
  MemoryUsage region_usage(uint32_t region) const;
  /// Where allocations come from (0: common blocks) -> the previous one; see RegionScope.
  uint32_t use_region(uint32_t region) { return std::exchange(region_, region); }

  MemoryUsage usage() const;
  const PoolCounters& counters() const { return counters_; }
  std::string usage_table() const;
  void set_budget(uint64_t bytes) { budget_ = bytes; }
  /// The peaks start anew from what is in use now.
  void reset_peak();
  /// Frees empty blocks. Waits for the device.
  void trim();

 private:
  friend class Buffer;
  BufferPtr take(uint64_t bytes, MemoryClass cls, bool host);
  BufferPtr take_from(Block& block, uint64_t bytes, uint64_t reserved, MemoryClass cls);
  Block* add_block(uint64_t bytes, bool host, uint32_t region);
  bool bind_memory(Block& block);
  void destroy(Block& block);
  void give_back(const Buffer& buffer);
  uint32_t memory_type(uint32_t allowed, VkMemoryPropertyFlags wanted, VkMemoryPropertyFlags needed) const;

  Device& device_;
  uint64_t budget_;
  bool real_;
  size_t max_views_ = 32768;
  std::vector<std::unique_ptr<Block>> blocks_;
  MemoryUsage usage_;
  PoolCounters counters_;
  uint64_t views_generation_ = 0;
  uint32_t region_ = 0, last_region_ = 0;
};

/// While it lives, activations and scratch memory come from a region of the pool.
class RegionScope {
 public:
  RegionScope(Pool& pool, uint32_t region) : pool_(pool), previous_(pool.use_region(region)) {}
  ~RegionScope() { pool_.use_region(previous_); }
  RegionScope(const RegionScope&) = delete;
  RegionScope& operator=(const RegionScope&) = delete;

 private:
  Pool& pool_;
  uint32_t previous_;
};

}  // namespace vkflux
