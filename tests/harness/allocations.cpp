#include "tests/harness/allocations.h"

#include <malloc.h>

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <new>

namespace {

thread_local int64_t held = 0, most = 0;

}  // namespace

// The other forms of new and delete, but for aligned ones, are defined by these in the standard library.
void* operator new(std::size_t size) {
  void* p = std::malloc(size ? size : 1);
  if (!p) throw std::bad_alloc();
  held += static_cast<int64_t>(::malloc_usable_size(p));
  most = std::max(most, held);
  return p;
}

void operator delete(void* p) noexcept {
  if (p) held -= static_cast<int64_t>(::malloc_usable_size(p));
  std::free(p);
}

void operator delete(void* p, std::size_t) noexcept {
  operator delete(p);
}

namespace vkflux::test {

AllocationMeter::AllocationMeter() : start_(held) {
  most = held;
}

uint64_t AllocationMeter::peak() const {
  return static_cast<uint64_t>(std::max<int64_t>(0, most - start_));
}

}  // namespace vkflux::test
