// PNG files as 8-bit straight-alpha RGBA.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

namespace vkflux {

struct Rgba8 {
  int width = 0, height = 0;
  std::vector<uint8_t> pixels;  // height * width * 4
};

/// Any PNG; grey, palette and 16-bit pictures are converted. At most 16384 pixels a side and 64 Mpixel.
Rgba8 read_png_rgba8(const std::filesystem::path& path);
void write_png_rgba8(const std::filesystem::path& path, const Rgba8& image);

}  // namespace vkflux
