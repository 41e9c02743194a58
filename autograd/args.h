// The push-constant structs of all kernels, from the files that the shaders include too.
#pragma once

#include <cstdint>

namespace vkflux::args {
using uint = uint32_t;
#include "all_args.h"  // generated: every shaders/*.args.h
}  // namespace vkflux::args
