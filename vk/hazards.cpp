#include "vk/hazards.h"

#include <algorithm>

namespace vkflux {
namespace {

constexpr size_t kMaxTouched = 256;  // beyond this a barrier is cheaper than the comparisons

bool overlaps(const std::vector<Hazards::Range>& touched, const Hazards::Range& n) {
  return std::any_of(touched.begin(), touched.end(), [&](const Hazards::Range& t) {
    return t.begin < n.end && n.begin < t.end && t.buffer == n.buffer;
  });
}

}  // namespace

bool Hazards::conflict(std::span<const Range> next) const {
  if (reads_.size() + writes_.size() + next.size() > kMaxTouched) return true;
  return std::any_of(next.begin(), next.end(), [&](const Range& n) {
    return overlaps(writes_, n) || (n.written && overlaps(reads_, n));
  });
}

void Hazards::add(std::span<const Range> next) {
  for (const Range& n : next) (n.written ? writes_ : reads_).push_back(n);
}

void Hazards::clear() {
  reads_.clear();
  writes_.clear();
}

}  // namespace vkflux
