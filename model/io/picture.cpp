#include "model/io/picture.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>

#include "model/io/exif.h"
#include "model/io/file.h"
#include "model/io/png.h"
#include "vk/error.h"

namespace vkflux::io {
namespace {

constexpr std::string_view kPng("\x89PNG\r\n\x1a\n", 8), kJpeg = "\xFF\xD8\xFF";

bool is_webp(std::string_view bytes) {
  return bytes.starts_with("RIFF") && bytes.size() >= 12 && bytes.substr(8, 4) == "WEBP";
}

/// What a file that can't be read seems to be.
std::string_view other_format(std::string_view bytes) {
  using namespace std::string_view_literals;
  if (bytes.empty()) return "an empty file";
  if (bytes.starts_with("GIF8")) return "GIF";
  if (bytes.starts_with("BM")) return "BMP";
  if (bytes.starts_with("II*\0"sv) || bytes.starts_with("MM\0*"sv)) return "TIFF";
  if (bytes.starts_with("\0\0\0\x0CJXL "sv) || bytes.starts_with("\xFF\x0A")) return "JPEG XL";
  if (bytes.size() >= 12 && bytes.substr(4, 4) == "ftyp") return "AVIF, HEIC or a film";
  if (bytes.starts_with("<?xml") || bytes.starts_with("<svg")) return "SVG or other XML";
  if (bytes.starts_with("version https://git-lfs")) return "a pointer of Git LFS: fetch the file itself";
  return "something else";
}

}  // namespace

void check_picture_size(const std::string& origin, uint64_t width, uint64_t height) {
  constexpr uint64_t kMaxSide = 16384, kMaxPixels = 64ull << 20;
  if (width >= 1 && height >= 1 && width <= kMaxSide && height <= kMaxSide && width * height <= kMaxPixels)
    return;
  throw Error(
      ErrorCode::format,
      fmt::format("{}: {}x{} pixels; the limits are 1 to {} a side and {} million in all: scale it down",
                  origin, width, height, kMaxSide, kMaxPixels >> 20));
}

PictureFacts probe_picture(std::string_view bytes, const std::string& origin) {
  if (bytes.starts_with(kPng)) return probe_png(bytes, origin);
  if (bytes.starts_with(kJpeg)) return probe_jpeg(bytes, origin);
  if (is_webp(bytes)) return probe_webp(bytes, origin);
  throw Error(ErrorCode::format,
              fmt::format("{}: no PNG, JPEG or WebP picture, but {}", origin, other_format(bytes)));
}

Picture decode_picture(const std::string& bytes, const std::string& origin) {
  Picture out;
  out.facts = probe_picture(bytes, origin);
  out.image = out.facts.format == "PNG"    ? decode_png(bytes, origin)
              : out.facts.format == "JPEG" ? decode_jpeg(bytes, origin)
                                           : decode_webp(bytes, origin);
  out.image = upright(std::move(out.image), out.facts.orientation);
  return out;
}

Picture read_picture(const std::string& path) {
  return decode_picture(read_file(path, kMaxPictureFile), path);
}

}  // namespace vkflux::io
