// An in-order recorder of GPU work.
//
// dispatch() appends; before appending it compares the byte ranges of its bindings with those touched since
// the last barrier and inserts one memory barrier only when needed. Work is submitted by estimated time,
// never by count, so that no submit holds a shared queue for long. One thread per stream.
#pragma once

#include <cstdint>
#include <deque>
#include <span>
#include <string>
#include <vector>

#include "vk/functions.h"
#include "vk/kernel.h"
#include "vk/memory.h"

namespace vkflux {

/// Counted work of a dispatch: what the kernel must do, not what an implementation happens to do.
struct Cost {
  double flops = 0, bytes = 0;
};

struct Groups {
  uint32_t x = 1, y = 1, z = 1;
};

/// Bytes [offset, offset + size) of a buffer, bound to one binding of a kernel.
struct BufferRange {
  BufferPtr buffer;
  uint64_t offset = 0, size = 0;
};

struct StreamCounters {
  uint64_t dispatches = 0, barriers = 0, submits = 0, uploads = 0, downloads = 0, copies = 0;
  double flops = 0, bytes = 0;  // sums of the dispatches' costs
};

class Stream {
 public:
  explicit Stream(Device& device);
  ~Stream();

  /// Records one dispatch. args: the push constants (exactly the reflected size, or empty).
  void dispatch(const Kernel& kernel, std::span<const BufferRange> bindings, std::span<const std::byte> args,
                Groups groups, Cost cost);
  void copy(const BufferRange& dst, const BufferRange& src);
  void fill(const BufferRange& dst, uint32_t word);
  /// Host to device through staging; src may be reused at once.
  void upload(const BufferRange& dst, std::span<const std::byte> src);
  /// Device to host; waits for everything recorded so far.
  void download(std::span<std::byte> dst, const BufferRange& src);

  /// Hands what is recorded to the queue; returns the timeline value that marks its end.
  uint64_t submit();
  void wait(uint64_t value);
  void sync() { wait(submit()); }

  const StreamCounters& counters() const { return counters_; }
  /// Longest estimated time of one submit.
  void set_time_slice_ms(double ms) { slice_ms_ = ms; }

 private:
  struct Batch {  // one command buffer and what must live until it has run
    VkCommandPool pool = VK_NULL_HANDLE;
    VkCommandBuffer commands = VK_NULL_HANDLE;
    VkDescriptorPool descriptors = VK_NULL_HANDLE;
    uint32_t descriptor_sets = 0;
    VkQueryPool queries = VK_NULL_HANDLE;
    uint64_t value = 0;
    double estimated_ms = 0;
    struct Timed {
      const Kernel* kernel;
      Cost cost;
    };
    std::vector<Timed> timed;
    std::vector<BufferPtr> keep;
  };
  struct Touched {
    VkBuffer buffer;
    uint64_t begin, end;
    bool written;
  };

  Batch& recording();
  void guard(std::span<const Touched> next);
  void bind(Batch& batch, const Kernel& kernel, std::span<const BufferRange> bindings);
  void issue(Batch& batch, const Kernel& kernel, Groups groups, Cost cost);
  double estimate_ms(Cost cost) const;
  void retire(Batch& batch);
  void make_batch(Batch& batch);

  Device& device_;
  VkSemaphore timeline_ = VK_NULL_HANDLE;
  uint64_t next_value_ = 1, done_ = 0;
  std::deque<Batch> in_flight_;
  std::vector<Batch> idle_;
  Batch current_;
  bool open_ = false;
  std::vector<Touched> touched_;
  StreamCounters counters_;
  double slice_ms_ = 20;
  double gflops_ = 20, gbs_ = 4;  // calibrated by timestamps
  bool lost_ = false;
};

}  // namespace vkflux
