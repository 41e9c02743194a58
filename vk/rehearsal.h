// How much device memory work would take, found out by doing it without a device: while a Rehearsal lives,
// the same code runs, buffers have sizes and places in blocks but no memory, and nothing is dispatched,
// uploaded or waited for. What is read back is zero.
//
//   const Rehearsal rehearsal(device, budget);
//   { const auto model = load(...);  model->forward(...); }   // takes no time and no memory
//   rehearsal.usage().peak;
//
// Everything that was made in it must be gone before it, and nothing made before it may be given up in it.
#pragma once

#include <memory>

#include "vk/device.h"

namespace vkflux {

class Rehearsal {
 public:
  /// budget: of its pool, 0: none. Error out_of_device_memory is thrown as it would be. Error internal within
  /// another rehearsal.
  Rehearsal(Device& device, uint64_t budget);
  ~Rehearsal();
  Rehearsal(const Rehearsal&) = delete;
  Rehearsal& operator=(const Rehearsal&) = delete;

  MemoryUsage usage() const { return device_.pool().usage(); }

 private:
  void exchange();

  Device& device_;
  // The device's own, which come back.
  std::unique_ptr<Pool> pool_;
  std::unique_ptr<Stream> stream_;
  std::unique_ptr<Tally> saturated_;
  std::map<std::string, BufferPtr> constants_;
  uint64_t constant_bytes_ = 0;
};

}  // namespace vkflux
