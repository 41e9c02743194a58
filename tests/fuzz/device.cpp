// The device of loaders that need one, made when the first of them runs.
#include <memory>

#include "tests/harness/gpu.h"

namespace vkflux::test {

Device& device() {
  static const std::unique_ptr<Device> d = Device::create();
  return *d;
}

}  // namespace vkflux::test
