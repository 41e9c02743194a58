// An in-order recorder of GPU work.
//
// dispatch() appends; before appending it compares the byte ranges of its bindings with those touched since
// the last barrier and inserts one memory barrier only when needed. Work is submitted by estimated time,
// never by count, so that no submit holds a shared queue for long. One thread per stream.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "vk/functions.h"
#include "vk/hazards.h"
#include "vk/kernel.h"
#include "vk/memory.h"
#include "vk/recording.h"

namespace vkflux {

struct Groups {
  uint32_t x = 1, y = 1, z = 1;

  uint64_t count() const { return uint64_t{x} * y * z; }
};

/// Calls f(first, count) for boxes of workgroups that are `groups` together, in their order: as many as
/// `parts`, or somewhat more, or one for each workgroup.
void each_part(Groups groups, uint64_t parts, const std::function<void(Groups first, Groups count)>& f);

/// Bytes [offset, offset + size) of a buffer.
struct BufferRange {
  BufferPtr buffer;
  uint64_t offset = 0, size = 0;
};

/// The same without owning it: one binding of a kernel. Memory that is freed after the call stays valid for
/// it, since it is handed out again in stream order only.
struct Binding {
  Buffer* buffer = nullptr;
  uint64_t offset = 0, size = 0;
};

/// A copy to the host under way.
struct Download {
  BufferPtr staging;
  uint64_t size = 0, value = 0;  // value: of the timeline, when it is done
};

/// When the device ran a batch of work: by its timestamps, or by the host's clock from handing it over to
/// seeing it done where it has none. Only differences mean something.
struct BatchTime {
  double begin_ms = 0, end_ms = 0;
};

/// What a stream did since it was made. A steady step uploads nothing and downloads nothing but what its
/// caller asked for.
struct StreamCounters {
  uint64_t dispatches = 0, barriers = 0, submits = 0, uploads = 0, downloads = 0, copies = 0;
  uint64_t relayouts = 0;       // copies that an op made because its input had the wrong layout
  uint64_t replays = 0;         // of recordings; what they contain is counted above
  double flops = 0, bytes = 0;  // sums of the dispatches' costs
};

class Stream {
 public:
  /// real: false does no work but keeps alive what its work would (vk/rehearsal.h).
  explicit Stream(Device& device, bool real = true);
  ~Stream();

  /// Records one dispatch, or several that are it together where it costs more than dispatch_limit(). args:
  /// the push constants (exactly the reflected size, or empty).
  void dispatch(const Kernel& kernel, std::span<const Binding> bindings, std::span<const std::byte> args,
                Groups groups, Cost cost);
  /// What dispatch() refuses of the bindings, for a stream that isn't real.
  void rehearse(std::string_view kernel, const KernelInterface& interface, std::span<const Binding> bindings);
  void copy(const BufferRange& dst, const BufferRange& src);
  void fill(const BufferRange& dst, uint32_t word);
  /// Writes bytes [at, at + piece.size()) of what is uploaded; called for one piece after the other.
  using Fill = std::function<void(uint64_t at, std::span<std::byte> piece)>;
  /// Host to device: straight into the device's memory when the host reaches it and nothing is under way,
  /// else through staging, piece by piece while earlier ones are copied.
  void upload(const BufferRange& dst, const Fill& fill);
  /// src may be reused at once.
  void upload(const BufferRange& dst, std::span<const std::byte> src);
  /// Device to host; waits for everything recorded so far.
  void download(std::span<std::byte> dst, const BufferRange& src);
  /// The same without waiting: finish() waits for what was recorded before begin_download(), and nothing
  /// else.
  Download begin_download(const BufferRange& src);
  void finish(const Download& download, std::span<std::byte> dst);
  /// Runs recorded work again; it must be replayable().
  void replay(Recording& recording);
  bool is_recording() const { return target_ != nullptr; }

  /// Hands what is recorded to the queue; returns the timeline value that marks its end.
  uint64_t submit();
  void wait(uint64_t value);
  void sync() { wait(submit()); }
  /// What is recorded from now on begins when that timeline semaphore of another queue has the value.
  void begin_after(VkSemaphore semaphore, uint64_t value);
  /// The semaphore whose values submit() returns.
  VkSemaphore timeline() const { return timeline_; }
  /// Waits like wait(), from any thread, for what was handed to the queue; nothing is given back.
  void wait_elsewhere(uint64_t value) const;
  /// The time of the batch with that timeline value, which may be the coming one (next_value()) or the last;
  /// it is filled in when the batch is waited for, by whomever.
  std::shared_ptr<const BatchTime> time_of(uint64_t value);
  uint64_t next_value() const { return next_value_; }
  /// Waits for what was handed to the queue, and for nothing else that the device does, before objects that
  /// it uses are destroyed. A lost device ends it at once.
  void drain() noexcept;

  const StreamCounters& counters() const { return counters_; }
  void count_relayout() { ++counters_.relayouts; }
  /// Longest estimated time of one submit.
  void set_time_slice_ms(double ms) { slice_ms_ = ms; }
  /// What one command may cost at most, so that none lasts longer than drivers' watchdogs allow (kernels that
  /// count their workgroups excepted; those only stream through memory).
  Cost dispatch_limit() const { return dispatch_limit_; }
  void set_dispatch_limit(Cost most) { dispatch_limit_ = most; }

 private:
  friend class RecordingScope;
  struct Timed {
    std::string_view name;
    uint32_t scope;
    Cost cost;
  };
  struct Batch {  // one command buffer and what must live until it has run
    VkCommandPool pool = VK_NULL_HANDLE;
    VkCommandBuffer commands = VK_NULL_HANDLE;
    VkDescriptorPool descriptors = VK_NULL_HANDLE;
    uint32_t descriptor_sets = 0;
    VkQueryPool queries = VK_NULL_HANDLE;
    uint64_t value = 0;
    double estimated_ms = 0, submitted_ms = 0;
    std::vector<Timed> timed;
    std::vector<BufferPtr> keep;
  };

  Batch& recording();
  /// Where commands go now: the open batch, or the recording's open piece.
  VkCommandBuffer commands();
  void make_room(double ms);
  void barrier(VkCommandBuffer commands);
  void guard(std::span<const Hazards::Range> next);
  void bind(const Kernel& kernel, std::span<const Binding> bindings);
  BufferPtr stage(uint64_t bytes);
  void dispatch_part(const Kernel& kernel, std::span<const Binding> bindings, std::span<const std::byte> args,
                     Groups first, Groups count);
  VkDescriptorSet allocate_set(const Kernel& kernel);
  /// After each command: its estimated time, and its timestamp when profiling.
  void issued(std::string_view name, Cost cost);
  void keep(Buffer* buffer);
  double estimate_ms(Cost cost) const;
  void retire(Batch& batch);
  void make_batch(Batch& batch);
  uint64_t submit_open();
  /// Nothing is recorded or running.
  bool idle();

  void begin(Recording& recording);
  void end(bool complete);
  void run_piece(Recording& recording, const Recording::Piece& piece);

  Device& device_;
  bool real_;
  std::deque<BufferPtr> staged_;  // of a stream that isn't real: uploads that might be under way
  VkSemaphore timeline_ = VK_NULL_HANDLE;
  uint64_t next_value_ = 1, done_ = 0;
  std::vector<std::pair<VkSemaphore, uint64_t>> begin_after_;  // of the next submit
  std::map<uint64_t, std::shared_ptr<BatchTime>> watched_;
  BatchTime last_time_;  // of the last retired batch
  std::deque<Batch> in_flight_;
  std::vector<Batch> idle_;
  Batch current_;
  bool open_ = false;
  Recording* target_ = nullptr;
  StreamCounters before_;  // when the recording began
  Hazards hazards_;
  StreamCounters counters_;
  double slice_ms_ = 20;
  // A tenth of a second on a GPU of 0.3 TFLOP/s and 20 GB/s. Fixed, so that the same work is always cut
  // alike.
  Cost dispatch_limit_{32e9, 2e9};
  double gflops_ = 20, gbs_ = 4;  // calibrated by timestamps
  bool lost_ = false;
};

}  // namespace vkflux
