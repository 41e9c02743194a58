// Pictures that people bring, for data sets and for image to image alike: PNG, JPEG and WebP, known by what
// the file holds and not by its name.
#pragma once

#include <string>
#include <string_view>

#include "model/io/image8.h"

namespace vkflux::io {

/// What a file says about its picture.
struct PictureFacts {
  std::string_view format;    // "PNG", "JPEG", "WebP"
  int width = 0, height = 0;  // as stored
  int orientation = 1;        // EXIF's, 1 to 8
  bool alpha = false;         // some of it may be transparent
  bool indexed = false;       // its pixels are numbers of colours: a palette, or black and white in one bit
  bool deep = false;          // more than 8 bits a channel, of which 8 are kept
  bool profile = false;       // has an ICC colour profile, which isn't applied
  bool cmyk = false;          // inks, converted without a profile
  bool animated = false;      // of which the first picture is taken
};

struct Picture {
  Image8 image;  // upright
  PictureFacts facts;
};

/// From the headers; the pixels may still be damaged. Error format naming `origin` for other formats, damaged
/// headers and sizes over the limits of check_picture_size().
PictureFacts probe_picture(std::string_view bytes, const std::string& origin);

/// Turned upright as EXIF says. Error format naming `origin`: also for damaged or missing pixels.
Picture decode_picture(const std::string& bytes, const std::string& origin);
Picture read_picture(const std::string& path);

// One format each; the facts beside the pixels' are those that decode_picture() looks at.
PictureFacts probe_png(std::string_view bytes, const std::string& origin);
PictureFacts probe_jpeg(std::string_view bytes, const std::string& origin);
Image8 decode_jpeg(std::string_view bytes, const std::string& origin);
PictureFacts probe_webp(std::string_view bytes, const std::string& origin);
Image8 decode_webp(std::string_view bytes, const std::string& origin);

}  // namespace vkflux::io
