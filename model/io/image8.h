// 8-bit pictures in memory, and the sizes that are read.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace vkflux::io {

struct Image8 {
  int width = 0, height = 0;
  std::vector<uint8_t> rgba;  // height * width * 4, straight alpha
};

/// Largest file, in bytes, that a picture is read from.
inline constexpr uint64_t kMaxPictureFile = 1ull << 28;

/// Error format naming `origin` unless both sides are 1 to 16384 pixels and there are at most 64 Mpixel.
void check_picture_size(const std::string& origin, uint64_t width, uint64_t height);

}  // namespace vkflux::io
