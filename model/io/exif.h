// How a camera was held, and the texts beside a picture.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "model/io/image8.h"

namespace vkflux::io {

/// The orientation (1 to 8) of EXIF data: a TIFF header with directories, with or without "Exif\0\0" in
/// front. 1, upright, when there is none or the data make no sense: a picture isn't worse for its notes.
int exif_orientation(std::string_view data);

enum class ExifText { description, make, model, comment };
/// The texts of EXIF data as UTF-8; what makes no sense is left out.
std::vector<std::pair<ExifText, std::string>> exif_texts(std::string_view data);
/// EXIF data, from the TIFF header on, whose one text is the user's comment.
std::string exif_comment(const std::string& text);

/// The picture as it is to be seen, given the orientation that it was stored with.
Image8 upright(Image8 image, int orientation);

}  // namespace vkflux::io
