// What one binding of a kernel can hold.
#pragma once

#include <algorithm>
#include <cstdint>

#include "vk/caps.h"

namespace vkflux {

/// Bytes that a device binds both as a storage buffer and as a buffer of 128-bit texels.
inline int64_t max_binding_bytes(const Caps& caps) {
  return static_cast<int64_t>(std::min(caps.max_storage_buffer_range, 16 * caps.max_texel_elements));
}

}  // namespace vkflux
