#include "model/io/exif.h"

#include <algorithm>
#include <utility>

#include "model/io/json.h"

namespace vkflux::io {
namespace {

constexpr uint32_t kOrientationTag = 0x0112, kShort = 3, kLong = 4;
constexpr uint32_t kExifTag = 0x8769, kCommentTag = 0x9286, kUndefined = 7;
constexpr size_t kEntryBytes = 12, kCodeBytes = 8, kMostEntries = 1024;
constexpr std::string_view kUnicode("UNICODE\0", kCodeBytes);

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

/// The TIFF part; without data where there is none.
Tiff tiff_of(std::string_view data) {
  constexpr std::string_view kPrefix("Exif\0\0", 6), kLittle("II*\0", 4), kBig("MM\0*", 4);
  if (data.starts_with(kPrefix)) data.remove_prefix(kPrefix.size());
  if (!data.starts_with(kLittle) && !data.starts_with(kBig)) return {};
  return {data, data.starts_with(kBig)};
}

void append_utf8(std::string& out, uint32_t c) {
  if (c < 0x80) {
    out += static_cast<char>(c);
  } else if (c < 0x800) {
    out += static_cast<char>(0xC0 | c >> 6);
    out += static_cast<char>(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    out += static_cast<char>(0xE0 | c >> 12);
    out += static_cast<char>(0x80 | (c >> 6 & 0x3F));
    out += static_cast<char>(0x80 | (c & 0x3F));
  } else {
    out += static_cast<char>(0xF0 | c >> 18);
    out += static_cast<char>(0x80 | (c >> 12 & 0x3F));
    out += static_cast<char>(0x80 | (c >> 6 & 0x3F));
    out += static_cast<char>(0x80 | (c & 0x3F));
  }
}

std::string from_utf16(std::string_view units, bool big) {
  const Tiff numbers{units, big};
  constexpr uint32_t kReplacement = 0xFFFD;
  std::string out;
  for (size_t i = 0; i + 1 < units.size(); i += 2) {
    uint32_t c = numbers.number(i, 2);
    const uint32_t next = i + 3 < units.size() ? numbers.number(i + 2, 2) : 0;
    if (c == 0xFEFF) continue;
    if (c >= 0xD800 && c < 0xDC00 && next >= 0xDC00 && next < 0xE000) {
      c = 0x10000 + ((c - 0xD800) << 10) + (next - 0xDC00);
      i += 2;
    } else if (c >= 0xD800 && c < 0xE000) {
      c = kReplacement;
    }
    if (c != 0) append_utf8(out, c);
  }
  return out;
}

/// A text of UTF-16 whose order nobody says: ours and others' is the other programs' big endian, some write
/// the file's. Most characters of a text have a zero for their high byte.
std::string from_either_utf16(std::string_view units, bool file_big) {
  size_t even = 0, odd = 0;
  for (size_t i = 0; i < units.size(); ++i) (i % 2 ? odd : even) += units[i] == 0;
  return from_utf16(units, even == odd ? file_big : even > odd);
}

std::string comment_text(std::string_view data, bool big) {
  constexpr std::string_view kAscii("ASCII\0\0\0", kCodeBytes), kNone("\0\0\0\0\0\0\0\0", kCodeBytes);
  if (data.size() < kCodeBytes) return {};
  const std::string_view code = data.substr(0, kCodeBytes);
  data.remove_prefix(kCodeBytes);
  if (code == kUnicode) return from_either_utf16(data, big);
  if (code != kAscii && code != kNone) return {};
  return valid_utf8(std::string(data.substr(0, data.find('\0'))));
}

}  // namespace

std::vector<std::pair<ExifText, std::string>> exif_texts(std::string_view data) {
  const Tiff tiff = tiff_of(data);
  std::vector<std::pair<ExifText, std::string>> out;
  const auto directory = [&](size_t at, const auto& entry) {
    const size_t n = std::min<size_t>(tiff.number(at, 2), kMostEntries);
    for (size_t i = 0; i < n; ++i) {
      const size_t e = at + 2 + i * kEntryBytes;
      const uint32_t count = tiff.number(e + 4, 4);
      const size_t from = count <= 4 ? e + 8 : tiff.number(e + 8, 4);
      const bool inside = from <= tiff.data.size() && count <= tiff.data.size() - from;
      entry(tiff.number(e, 2), tiff.number(e + 8, 4),
            inside ? tiff.data.substr(from, count) : std::string_view());
    }
  };
  uint32_t below = 0;
  directory(tiff.number(4, 4), [&](uint32_t tag, uint32_t value, std::string_view text) {
    constexpr std::pair<uint32_t, ExifText> kTags[] = {
        {0x010E, ExifText::description}, {0x010F, ExifText::make}, {0x0110, ExifText::model}};
    for (const auto& [known, kind] : kTags) {
      if (tag == known && !text.empty())
        out.emplace_back(kind, valid_utf8(std::string(text.substr(0, text.find('\0')))));
    }
    if (tag == kExifTag) below = value;
  });
  if (below != 0) {
    directory(below, [&](uint32_t tag, uint32_t, std::string_view text) {
      if (tag == kCommentTag && !text.empty())
        out.emplace_back(ExifText::comment, comment_text(text, tiff.big));
    });
  }
  return out;
}

std::string exif_comment(const std::string& text) {
  const auto number = [](uint32_t v, size_t bytes) {
    std::string out;
    for (size_t i = bytes; i-- > 0;) out += static_cast<char>(v >> (8 * i));
    return out;
  };
  std::string comment(kUnicode);
  const std::string utf8 = valid_utf8(text);
  for (size_t i = 0; i < utf8.size();) {
    const auto lead = static_cast<unsigned char>(utf8[i]);
    const size_t length = lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
    uint32_t c = length == 1 ? lead : lead & (0xFFu >> (length + 1));
    for (size_t k = 1; k < length && i + k < utf8.size(); ++k)
      c = c << 6 | (static_cast<unsigned char>(utf8[i + k]) & 0x3Fu);
    i += length;
    if (c >= 0x10000) {
      comment += number(0xD800 + ((c - 0x10000) >> 10), 2);
      c = 0xDC00 + ((c - 0x10000) & 0x3FF);
    }
    comment += number(c, 2);
  }
  // A directory that only points to the one with the comment, big endian throughout.
  constexpr uint32_t kFirst = 8, kOneEntry = 2 + kEntryBytes + 4, kSecond = kFirst + kOneEntry;
  const auto one = [&](uint32_t tag, uint32_t type, size_t count, uint32_t value) {
    return number(1, 2) + number(tag, 2) + number(type, 2) + number(static_cast<uint32_t>(count), 4) +
           number(value, 4) + number(0, 4);
  };
  return "MM" + number(42, 2) + number(kFirst, 4) + one(kExifTag, kLong, 1, kSecond) +
         one(kCommentTag, kUndefined, comment.size(), kSecond + kOneEntry) + comment;
}

int exif_orientation(std::string_view data) {
  const Tiff tiff = tiff_of(data);
  if (tiff.data.empty()) return 1;
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
