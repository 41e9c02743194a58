#include "vk/tally.h"

#include "vk/device.h"

namespace vkflux {
namespace {

constexpr uint64_t kPlaces = 256, kApart = 256;  // bytes: every device can bind there
constexpr uint64_t kWordsApart = kApart / 4;

}  // namespace

BufferRange Tally::place() {
  if (!places_) {
    const RegionScope common(device_.pool(), 0);
    places_ = device_.pool().allocate(kPlaces * kApart, MemoryClass::scratch);
    taken_.assign(kPlaces * kWordsApart, 0);
    // An upload, not a fill: a recording that holds it isn't run again, and no later run starts from zero.
    device_.stream().upload({places_, 0, kPlaces * kApart}, std::as_bytes(std::span(taken_)));
  }
  return {places_, next_++ % kPlaces * kApart, 4};
}

uint64_t Tally::take() {
  if (!places_) return 0;
  std::vector<uint32_t> now(taken_.size());
  device_.stream().download(std::as_writable_bytes(std::span(now)), {places_, 0, kPlaces * kApart});
  uint64_t sum = 0;
  for (size_t i = 0; i < now.size(); i += kWordsApart) sum += now[i] - taken_[i];
  taken_ = std::move(now);
  return sum;
}

}  // namespace vkflux
