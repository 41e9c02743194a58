// Full subgroups of one size, as kernels with cooperative matrices need them.
#pragma once

#include <cstdint>

#include "vk/caps.h"

namespace vkflux {

/// What a pipeline asks of the driver for a kernel that needs full subgroups of `size` (0: any): flags of its
/// stage, and the size to require (0: none, the driver has one size).
struct SubgroupRequest {
  uint32_t flags = 0, size = 0;
};
SubgroupRequest subgroup_request(const Caps& caps, uint32_t size);

}  // namespace vkflux
