// Pictures as files that are written, and the texts that they carry.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "model/io/image8.h"
#include "model/io/png.h"

namespace vkflux::io {

enum class PictureFormat { png, jpeg, webp };
/// By the end of a name: .png, .jpg, .jpeg, .webp, in any case.
std::optional<PictureFormat> picture_format(std::string_view name);

/// The file of a picture with texts by keyword: chunks of a PNG; in a JPEG or WebP "parameters" is EXIF's
/// UserComment and all others are in an XMP packet. quality: 1 to 100 of JPEG and WebP, whose 100 is
/// lossless. JPEG has no alpha: it is dropped. Error invalid_argument for what can't be; texts too long for a
/// JPEG's segments are left out, and their keywords come back in `left_out`.
std::string encode_picture(const Image8& image, PictureFormat format, int quality, const PngText& text,
                           std::vector<std::string>* left_out = nullptr);

/// The texts of any picture that encode_picture() or other programs wrote: a PNG's chunks; of JPEG and WebP
/// EXIF's UserComment as "parameters", ImageDescription, Make and Model of the form "keyword:text", and what
/// encode_picture() puts into XMP. What makes no sense is left out. Error format for what is no picture.
PngText read_picture_text(const std::string& path);
PngText picture_text(const std::string& bytes, const std::string& origin);

/// The blocks of one format.
struct MetadataBlocks {
  std::string exif, xmp;  // without the formats' own headers
};
MetadataBlocks jpeg_metadata(std::string_view bytes, const std::string& origin);
MetadataBlocks webp_metadata(std::string_view bytes, const std::string& origin);
/// Blocks that are empty aren't written.
std::string encode_jpeg(const Image8& image, int quality, const MetadataBlocks& blocks);
std::string encode_webp(const Image8& image, int quality, const MetadataBlocks& blocks);

}  // namespace vkflux::io
