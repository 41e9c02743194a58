// Which byte ranges were touched since the last barrier, and whether the next command must wait for them.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "vk/functions.h"

namespace vkflux {

class Hazards {
 public:
  struct Range {
    VkBuffer buffer;
    uint64_t begin, end;
    bool written;
  };

  /// True when `next` reads what was written, or writes what was read or written, since clear().
  bool conflict(std::span<const Range> next) const;
  void add(std::span<const Range> next);
  void clear();
  bool empty() const { return reads_.empty() && writes_.empty(); }

 private:
  std::vector<Range> reads_, writes_;
};

}  // namespace vkflux
