// How a camera was held.
#pragma once

#include <string_view>

#include "model/io/image8.h"

namespace vkflux::io {

/// The orientation (1 to 8) of EXIF data: a TIFF header with directories, with or without "Exif\0\0" in
/// front. 1, upright, when there is none or the data make no sense: a picture isn't worse for its notes.
int exif_orientation(std::string_view data);

/// The picture as it is to be seen, given the orientation that it was stored with.
Image8 upright(Image8 image, int orientation);

}  // namespace vkflux::io
