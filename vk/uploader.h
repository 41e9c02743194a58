// Copies to the device that go on beside the stream's work: on a queue that only transfers where the device
// has one, else on the stream's own.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "vk/stream.h"

namespace vkflux {

/// copy() and wait() belong to one thread, which may be another than the stream's.
class Uploader {
 public:
  explicit Uploader(Device& device);
  ~Uploader();
  Uploader(const Uploader&) = delete;
  Uploader& operator=(const Uploader&) = delete;

  struct Copy {
    BufferPtr to, from;
    uint64_t from_offset = 0, size = 0;
  };
  /// Begins when the stream's timeline has the value `after`; returns the value of timeline() that marks its
  /// end. Waits for the copy before the last one.
  uint64_t copy(const std::vector<Copy>& copies, uint64_t after);
  void wait(uint64_t value);
  VkSemaphore timeline() const { return timeline_; }

 private:
  struct Commands {
    VkCommandPool pool = VK_NULL_HANDLE;
    VkCommandBuffer buffer = VK_NULL_HANDLE;
    uint64_t value = 0;  // when it was last used
  };

  Device& device_;
  VkQueue queue_;
  VkSemaphore timeline_ = VK_NULL_HANDLE;
  uint64_t next_value_ = 1;
  Commands commands_[2];
};

}  // namespace vkflux
