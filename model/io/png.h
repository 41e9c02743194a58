// PNG files as 8-bit RGBA, with text chunks.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace vkflux::io {

struct Image8 {
  int width = 0, height = 0;
  std::vector<uint8_t> rgba;  // height * width * 4, straight alpha
};

using PngText = std::vector<std::pair<std::string, std::string>>;  // keyword (1 to 79 characters), UTF-8 text

/// Any PNG; grey, palette and 16-bit pictures are converted. At most 16384 pixels a side and 64 Mpixel (Error
/// format).
Image8 read_png(const std::string& path);
Image8 decode_png(const std::string& bytes, const std::string& origin);
PngText read_png_text(const std::string& path);

/// Written atomically; without the alpha channel when every pixel is opaque.
void write_png(const std::string& path, const Image8& image, const PngText& text = {});
std::string encode_png(const Image8& image, const PngText& text = {});

}  // namespace vkflux::io
