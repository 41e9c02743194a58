// Whole-file reading with a size limit, atomic writing, and PNG files as 8-bit straight-alpha RGBA.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace vkflux {

struct Rgba8 {
  int width = 0, height = 0;
  std::vector<uint8_t> pixels;  // height * width * 4
};

/// ErrorCode::io when it can't be read, ErrorCode::format when it is longer than `max_bytes`.
std::vector<uint8_t> read_bytes(const std::filesystem::path& path, size_t max_bytes);
std::string read_text(const std::filesystem::path& path, size_t max_bytes);

/// Temporary name beside it, fsync, rename.
void write_bytes(const std::filesystem::path& path, std::span<const uint8_t> bytes);
void write_text(const std::filesystem::path& path, std::string_view text);

/// Any PNG; grey, palette and 16-bit pictures are converted. At most 16384 pixels a side and 64 Mpixel.
Rgba8 read_png_rgba8(const std::filesystem::path& path);
void write_png_rgba8(const std::filesystem::path& path, const Rgba8& image);

}  // namespace vkflux
