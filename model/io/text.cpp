#include "model/io/text.h"

#include <fmt/format.h>
#include <utf8proc.h>

#include <algorithm>

#include "model/io/file.h"
#include "vk/error.h"

namespace vkflux::io {
namespace {

constexpr std::string_view kMark = "\xEF\xBB\xBF", kUtf16Little = "\xFF\xFE", kUtf16Big = "\xFE\xFF";
constexpr std::string_view kUtf32Little("\xFF\xFE\0\0", 4), kUtf32Big("\0\0\xFE\xFF", 4);
constexpr char kNul = 0;

/// The line, from 1, that an offset into UTF-8 (or into the part of a file that is) lies in.
size_t line_of(std::string_view text, size_t offset) {
  size_t line = 1;
  for (size_t i = 0; i < std::min(offset, text.size()); ++i) {
    const bool crlf = text[i] == '\r' && i + 1 < text.size() && text[i + 1] == '\n';
    if (text[i] == '\n' || (text[i] == '\r' && !crlf)) ++line;
  }
  return line;
}

[[noreturn]] void refuse(const std::string& origin, size_t line, unsigned byte, size_t offset,
                         std::string_view what) {
  throw Error(ErrorCode::format,
              fmt::format("{}: line {}: byte 0x{:02X} at offset {} {}; save the file as UTF-8", origin, line,
                          byte, offset, what));
}

void append_utf8(char32_t c, std::string& out) {
  utf8proc_uint8_t bytes[4];
  const auto n = utf8proc_encode_char(static_cast<utf8proc_int32_t>(c), bytes);
  out.append(reinterpret_cast<const char*>(bytes), static_cast<size_t>(n));
}

std::string from_utf16(std::string_view bytes, bool big, const std::string& origin) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(bytes[i]); };
  const auto unit = [&](size_t i) {
    return static_cast<char32_t>(big ? byte(i) << 8 | byte(i + 1) : byte(i + 1) << 8 | byte(i));
  };
  std::string out;
  for (size_t i = kUtf16Little.size(); i < bytes.size(); i += 2) {
    const auto bad = [&](const char* what) { refuse(origin, line_of(out, out.size()), byte(i), i, what); };
    if (i + 1 == bytes.size()) bad("is half a UTF-16 unit");
    char32_t c = unit(i);
    if (c >= 0xDC00 && c < 0xE000) bad("begins the second half of a UTF-16 pair that has no first");
    if (c >= 0xD800 && c < 0xDC00) {
      const char32_t low = i + 3 < bytes.size() ? unit(i + 2) : 0;
      if (low < 0xDC00 || low >= 0xE000) bad("begins a UTF-16 pair that has no second half");
      c = 0x10000 + ((c - 0xD800) << 10) + (low - 0xDC00);
      i += 2;
    }
    if (c == 0) bad("begins a NUL character, which no text has");
    append_utf8(c, out);
  }
  return out;
}

}  // namespace

size_t find_bad_utf8(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    utf8proc_int32_t codepoint = 0;
    const auto n = utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data() + at),
                                    static_cast<utf8proc_ssize_t>(text.size() - at), &codepoint);
    if (n <= 0) return at;
    at += static_cast<size_t>(n);
  }
  return std::string_view::npos;
}

std::string decode_text(std::string_view bytes, const std::string& origin) {
  if (bytes.starts_with(kUtf32Little) || bytes.starts_with(kUtf32Big))
    refuse(origin, 1, static_cast<unsigned char>(bytes[0]), 0, "begins UTF-32");
  if (bytes.starts_with(kUtf16Little)) return from_utf16(bytes, false, origin);
  if (bytes.starts_with(kUtf16Big)) return from_utf16(bytes, true, origin);
  const auto bad = [&](size_t at, std::string_view what) {
    refuse(origin, line_of(bytes, at), static_cast<unsigned char>(bytes[at]), at, what);
  };
  constexpr std::string_view kControls("\0\x1B", 2);
  if (const size_t at = find_bad_utf8(bytes); at < bytes.size())
    bad(at, "isn't UTF-8 (Latin-1, Windows-1252, Shift-JIS or another encoding?)");
  if (const size_t at = bytes.find_first_of(kControls); at < bytes.size()) {
    bad(at, bytes[at] == kNul ? "is NUL, which no text has (UTF-16 without a byte order mark?)"
                              : "is an escape character (ISO-2022, or a terminal's colours?)");
  }
  return std::string(bytes.substr(bytes.starts_with(kMark) ? kMark.size() : 0));
}

std::string read_text(const std::string& path, uint64_t max_bytes) {
  return decode_text(read_file(path, max_bytes), path);
}

std::vector<std::string> split_lines(std::string_view text) {
  std::vector<std::string> lines;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find_first_of("\r\n", at), text.size());
    std::string_view line = text.substr(at, end - at);
    if (line.starts_with(kMark)) line.remove_prefix(kMark.size());
    lines.emplace_back(line);
    at = end + (text.substr(end).starts_with("\r\n") ? 2 : 1);
  }
  return lines;
}

}  // namespace vkflux::io
