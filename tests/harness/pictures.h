// Pictures in the formats that people bring, for tests of what reads them.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "model/io/image8.h"

namespace vkflux::test {

/// width x height of one colour.
io::Image8 flat(int width, int height, uint8_t r, uint8_t g, uint8_t b, uint8_t a = 255);

/// EXIF data with an orientation, as a JPEG has them ("Exif\0\0" and a TIFF header of either byte order).
std::string exif_of(int orientation, bool big_endian = false);

struct JpegOptions {
  int quality = 95;
  bool grey = false, cmyk = false, progressive = false;
  std::string exif = {};  // of exif_of(); "": none
  bool profile = false;   // some bytes in place of an ICC profile
};
std::string jpeg_of(const io::Image8& image, const JpegOptions& options = {});

/// Lossless; the chunks ("EXIF", "ICCP", ...) and their data go behind the picture, in an extended file.
std::string webp_of(const io::Image8& image,
                    const std::vector<std::pair<std::string, std::string>>& chunks = {});
/// Of pictures of one size.
std::string animated_webp(const std::vector<io::Image8>& frames);

}  // namespace vkflux::test
