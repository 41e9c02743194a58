// PNG files as 8-bit RGBA, with text chunks.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "model/io/image8.h"

namespace vkflux::io {

using PngText = std::vector<std::pair<std::string, std::string>>;  // keyword (1 to 79 characters), UTF-8 text

/// Any PNG, as it is stored (io::read_picture() also turns it upright); grey, palette and 16-bit pictures are
/// converted. Error format over the limits of check_picture_size().
Image8 read_png(const std::string& path);
Image8 decode_png(const std::string& bytes, const std::string& origin);
PngText read_png_text(const std::string& path);
PngText decode_png_text(const std::string& bytes, const std::string& origin);

/// Written atomically; without the alpha channel when every pixel is opaque.
void write_png(const std::string& path, const Image8& image, const PngText& text = {});
std::string encode_png(const Image8& image, const PngText& text = {});

}  // namespace vkflux::io
