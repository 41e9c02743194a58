#include "model/io/exif.h"

#include <algorithm>
#include <utility>

namespace vkflux::io {
namespace {

constexpr uint32_t kOrientationTag = 0x0112, kShort = 3, kLong = 4;
constexpr size_t kEntryBytes = 12;

/// Numbers of either byte order; 0 beyond the end.
struct Tiff {
  std::string_view data;
  bool big = false;

  uint32_t number(size_t at, size_t bytes) const {
    if (at > data.size() || bytes > data.size() - at) return 0;
    uint32_t value = 0;
    for (size_t i = 0; i < bytes; ++i)
      value = value << 8 | static_cast<unsigned char>(data[at + (big ? i : bytes - 1 - i)]);
    return value;
  }
};

}  // namespace

int exif_orientation(std::string_view data) {
  constexpr std::string_view kPrefix("Exif\0\0", 6), kLittle("II*\0", 4), kBig("MM\0*", 4);
  if (data.starts_with(kPrefix)) data.remove_prefix(kPrefix.size());
  if (!data.starts_with(kLittle) && !data.starts_with(kBig)) return 1;
  const Tiff tiff{data, data.starts_with(kBig)};
  const size_t directory = tiff.number(4, 4);
  for (size_t i = 0; i < tiff.number(directory, 2); ++i) {
    const size_t entry = directory + 2 + i * kEntryBytes;
    if (tiff.number(entry, 2) != kOrientationTag) continue;
    const uint32_t type = tiff.number(entry + 2, 2);
    const uint32_t value = type == kShort  ? tiff.number(entry + 8, 2)
                           : type == kLong ? tiff.number(entry + 8, 4)
                                           : 0;
    return value >= 1 && value <= 8 ? static_cast<int>(value) : 1;
  }
  return 1;
}

Image8 upright(Image8 image, int orientation) {
  if (orientation <= 1 || orientation > 8) return image;
  const int w = image.width, h = image.height;
  const bool sideways = orientation >= 5;
  Image8 out{sideways ? h : w, sideways ? w : h, std::vector<uint8_t>(image.rgba.size())};
  // Where the pixel (x, y) of the upright picture is stored.
  const auto stored = [&](int x, int y) -> std::pair<int, int> {
    switch (orientation) {
      case 2:
        return {w - 1 - x, y};
      case 3:
        return {w - 1 - x, h - 1 - y};
      case 4:
        return {x, h - 1 - y};
      case 5:
        return {y, x};
      case 6:
        return {y, h - 1 - x};
      case 7:
        return {w - 1 - y, h - 1 - x};
      default:
        return {w - 1 - y, x};
    }
  };
  const auto offset = [](int x, int y, int width) {
    return (static_cast<size_t>(y) * static_cast<size_t>(width) + static_cast<size_t>(x)) * 4;
  };
  for (int y = 0; y < out.height; ++y) {
    for (int x = 0; x < out.width; ++x) {
      const auto [from_x, from_y] = stored(x, y);
      std::copy_n(&image.rgba[offset(from_x, from_y, w)], 4, &out.rgba[offset(x, y, out.width)]);
    }
  }
  return out;
}

}  // namespace vkflux::io
