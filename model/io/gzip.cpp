#include "model/io/gzip.h"

#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <climits>

#include "vk/error.h"

namespace vkflux::io {

bool is_gzip(std::string_view start) {
  return start.starts_with("\x1f\x8b");
}

std::string gunzip(std::string_view bytes, const std::string& origin, uint64_t max_bytes) {
  const auto bad = [&](const std::string& what) {
    throw Error(ErrorCode::format, fmt::format("{}: {}", origin, what));
  };
  if (bytes.size() > UINT_MAX) bad("it is too large for a gzip file of one piece");
  z_stream stream{};
  constexpr int kGzipOnly = 16 + MAX_WBITS;
  if (inflateInit2(&stream, kGzipOnly) != Z_OK) throw Error(ErrorCode::internal, "zlib can't begin");
  struct End {
    z_stream& stream;
    ~End() { inflateEnd(&stream); }
  } end{stream};
  stream.next_in = const_cast<Bytef*>(reinterpret_cast<const Bytef*>(bytes.data()));
  stream.avail_in = static_cast<uInt>(bytes.size());
  std::string out;
  std::array<char, 64 << 10> piece;
  for (int state = Z_OK; state != Z_STREAM_END;) {
    stream.next_out = reinterpret_cast<Bytef*>(piece.data());
    stream.avail_out = static_cast<uInt>(piece.size());
    state = inflate(&stream, Z_NO_FLUSH);
    const size_t n = piece.size() - stream.avail_out;
    if (state != Z_OK && state != Z_STREAM_END)
      bad(fmt::format("it is cut short or damaged (zlib: {})", stream.msg ? stream.msg : "no more data"));
    if (n > max_bytes - std::min<uint64_t>(out.size(), max_bytes))
      bad(fmt::format("it unpacks to over {} bytes", max_bytes));
    out.append(piece.data(), n);
  }
  return out;
}

}  // namespace vkflux::io
