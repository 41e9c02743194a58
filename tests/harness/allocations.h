// What a thread takes from the heap: the test programs' operator new counts.
#pragma once

#include <cstdint>

namespace vkflux::test {

/// Counts what this thread has taken by operator new since the object was made, less what it gave back.
class AllocationMeter {
 public:
  AllocationMeter();
  /// The most bytes held at one time.
  uint64_t peak() const;

 private:
  int64_t start_;
};

}  // namespace vkflux::test
