// Launch of kernels over flat arrays (shaders/common/flat.glsl).
#pragma once

#include "autograd/run.h"

namespace vkflux {

struct FlatLaunch {
  const char* variant;  // of the kernel: "wide" or "f32"
  uint32_t local;
  Groups groups;
};
/// For `count` elements of every array, in rows of whole groups where `row` is given; op names the
/// VariantOverride ("simd", "gpu").
FlatLaunch flat_launch(Device& device, const char* op, int64_t count, int64_t row = 0);

/// Whether kernels of two vec4 at a time are the fast ones here, where a row or array has `count` elements.
bool use_wide(Device& device, const char* op, int64_t count);

}  // namespace vkflux
