#include "vk/rehearsal.h"

#include <utility>

#include "vk/error.h"

namespace vkflux {

Rehearsal::Rehearsal(Device& device, uint64_t budget) : device_(device) {
  if (device.rehearsing()) throw Error(ErrorCode::internal, "a rehearsal has begun inside of another one");
  pool_ = std::make_unique<Pool>(device, budget, false);
  stream_ = std::make_unique<Stream>(device, false);
  saturated_ = std::make_unique<Tally>(device);
  exchange();
  device_.rehearsing_ = true;
}

Rehearsal::~Rehearsal() {
  exchange();
  device_.rehearsing_ = false;
  // They point to the pool that goes.
  constants_.clear();
  saturated_.reset();
  stream_.reset();
}

void Rehearsal::exchange() {
  std::swap(pool_, device_.pool_);
  std::swap(stream_, device_.stream_);
  std::swap(saturated_, device_.saturated_);
  std::swap(constants_, device_.constants_);
  std::swap(constant_bytes_, device_.constant_bytes_);
}

}  // namespace vkflux
