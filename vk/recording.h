// Work recorded once and run many times: command buffers with fixed bindings and a barrier in front.
//
//   Recording r(device);
//   { const RegionScope memory(device.pool(), region);  const RecordingScope scope(device.stream(), r);
//   work(); } if (r.replayable()) device.stream().replay(r);   // the same commands on the same addresses
//
// What is recorded runs at once, too. Temporary tensors of the work must come from a region of the pool that
// nobody else uses while the recording lives; every other buffer is kept alive by the recording. Tensors that
// outlive the work must be made before anything is recorded in that region, or outside of it: the temporaries
// of an earlier recording may lie on any range that was free when it was made.
#pragma once

#include <cstdint>
#include <unordered_map>
#include <vector>

#include "vk/hazards.h"
#include "vk/memory.h"

namespace vkflux {

class Device;
class Stream;

/// Counted work of a dispatch: what the kernel must do, not what an implementation happens to do.
struct Cost {
  double flops = 0, bytes = 0;
};

class Recording {
 public:
  explicit Recording(Device& device);
  /// Waits until the device is done with it.
  ~Recording();
  Recording(const Recording&) = delete;
  Recording& operator=(const Recording&) = delete;

  /// Complete, and nothing in it came from the host or went there.
  bool replayable() const;
  uint64_t dispatches() const { return dispatches_; }
  /// Devices without push descriptors can't record: their descriptor sets belong to one submit.
  static bool supported(const Device& device);

 private:
  friend class Stream;
  struct Piece {  // no longer than the stream's time slice
    VkCommandBuffer commands = VK_NULL_HANDLE;
    double estimated_ms = 0;
  };
  void begin_piece();
  void end_piece();

  Device& device_;
  VkCommandPool pool_ = VK_NULL_HANDLE;
  std::vector<Piece> pieces_;
  Hazards tail_;                                 // touched since its last barrier
  std::unordered_map<Buffer*, BufferPtr> keep_;  // outside of regions
  uint64_t last_use_ = 0;                        // timeline value
  uint64_t views_generation_ = 0;
  uint64_t dispatches_ = 0, barriers_ = 0, copies_ = 0;
  Cost cost_;
  bool complete_ = false, host_data_ = false;
};

/// While it lives, the stream records into `recording` (which must be new) and runs it piece by piece.
class RecordingScope {
 public:
  RecordingScope(Stream& stream, Recording& recording);
  ~RecordingScope() noexcept(false);
  RecordingScope(const RecordingScope&) = delete;
  RecordingScope& operator=(const RecordingScope&) = delete;

 private:
  Stream& stream_;
  int exceptions_;
};

}  // namespace vkflux
