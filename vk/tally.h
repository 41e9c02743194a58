// A number that kernels add up over many calls, for people to hear of.
#pragma once

#include <cstdint>
#include <vector>

#include "vk/stream.h"

namespace vkflux {

class Tally {
 public:
  explicit Tally(Device& device) : device_(device) {}

  /// Where the next call of a kernel adds up, a u32. Calls take turns at many places, so that none waits for
  /// the one before it.
  BufferRange place();
  /// What was counted since the last time. Waits for the device, unless no kernel ever had a place.
  uint64_t take();

 private:
  Device& device_;
  BufferPtr places_;
  uint64_t next_ = 0;
  std::vector<uint32_t> taken_;
};

}  // namespace vkflux
