// Sizes that a stream's parts agree on.
#pragma once

#include <cstdint>

namespace vkflux {

constexpr uint32_t kQueries = 4096;  // timestamps of one profiled batch
constexpr uint32_t kSetsPerPool = 1024;

}  // namespace vkflux
