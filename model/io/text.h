// Text that people wrote: prompts, captions and lists of them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace vkflux::io {

/// The text as UTF-8 without a byte order mark, from UTF-8 with or without one or UTF-16 of either order with
/// one. Error format names `origin`, the line and the byte of anything else: bytes that aren't UTF-8
/// (Latin-1, Shift-JIS, ...), half a UTF-16 pair, and NUL and escape characters, of which UTF-16 and UTF-32
/// without a mark and ISO-2022 are full.
std::string decode_text(std::string_view bytes, const std::string& origin);
/// The same of a file. Errors of read_file() too.
std::string read_text(const std::string& path, uint64_t max_bytes);

/// Lines end with LF, CRLF or CR, which aren't part of them; the end of the last one may be missing. A byte
/// order mark in front of a line, as joined files have, isn't part of it either.
std::vector<std::string> split_lines(std::string_view text);

/// Offset of the first byte that is no part of a UTF-8 character; std::string_view::npos when all are.
size_t find_bad_utf8(std::string_view text);

}  // namespace vkflux::io
