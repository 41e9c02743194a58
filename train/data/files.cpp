#include "train/data/files.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <png.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <limits>

#include "vk/error.h"

namespace vkflux {
namespace {

constexpr size_t kMaxPngBytes = size_t{256} << 20;
constexpr png_uint_32 kMaxPngSide = 16384;
constexpr size_t kMaxPngPixels = size_t{64} << 20;

[[noreturn]] void fail(const std::filesystem::path& path, std::string_view what) {
  throw Error(ErrorCode::io, fmt::format("{}: {}: {}", path.string(), what, std::strerror(errno)));
}

struct PngImage : png_image {
  PngImage() : png_image{} { version = PNG_IMAGE_VERSION; }
  ~PngImage() { png_image_free(this); }
  PngImage(const PngImage&) = delete;
  PngImage& operator=(const PngImage&) = delete;
};

}  // namespace

std::vector<uint8_t> read_bytes(const std::filesystem::path& path, size_t max_bytes) {
  std::ifstream file(path, std::ios::binary);
  if (!file || std::filesystem::is_directory(path)) fail(path, "cannot open for reading");
  std::vector<uint8_t> bytes;
  std::vector<char> chunk(size_t{1} << 16);
  while (file.read(chunk.data(), static_cast<std::streamsize>(chunk.size())) || file.gcount() > 0) {
    if (bytes.size() + static_cast<size_t>(file.gcount()) > max_bytes) {
      throw Error(ErrorCode::format,
                  fmt::format("{}: longer than the limit of {} bytes", path.string(), max_bytes));
    }
    bytes.insert(bytes.end(), chunk.begin(), chunk.begin() + file.gcount());
  }
  if (file.bad()) fail(path, "cannot read");
  return bytes;
}

std::string read_text(const std::filesystem::path& path, size_t max_bytes) {
  const auto bytes = read_bytes(path, max_bytes);
  return {bytes.begin(), bytes.end()};
}

void write_bytes(const std::filesystem::path& path, std::span<const uint8_t> bytes) {
  const std::filesystem::path temporary = path.string() + fmt::format(".tmp{}", ::getpid());
  const int fd = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) fail(temporary, "cannot create");
  bool ok = true;
  for (size_t done = 0; ok && done < bytes.size();) {
    const ssize_t n = ::write(fd, bytes.data() + done, bytes.size() - done);
    if (n < 0 && errno == EINTR) continue;
    ok = n >= 0;
    if (ok) done += static_cast<size_t>(n);
  }
  ok = ok && ::fsync(fd) == 0;
  ok = (::close(fd) == 0) && ok;
  if (!ok || ::rename(temporary.c_str(), path.c_str()) != 0) {
    const int error = errno;
    ::unlink(temporary.c_str());
    errno = error;
    fail(path, "cannot write");
  }
}

void write_text(const std::filesystem::path& path, std::string_view text) {
  write_bytes(path, {reinterpret_cast<const uint8_t*>(text.data()), text.size()});
}

Rgba8 read_png_rgba8(const std::filesystem::path& path) {
  const auto bytes = read_bytes(path, kMaxPngBytes);
  PngImage png;
  if (!png_image_begin_read_from_memory(&png, bytes.data(), bytes.size())) {
    throw Error(ErrorCode::format, fmt::format("{}: not a PNG file: {}", path.string(), png.message));
  }
  if (png.width > kMaxPngSide || png.height > kMaxPngSide || size_t{png.width} * png.height > kMaxPngPixels) {
    throw Error(ErrorCode::format,
                fmt::format("{}: {}x{} pixels; at most {} a side and {} in all", path.string(), png.width,
                            png.height, kMaxPngSide, kMaxPngPixels));
  }
  png.format = PNG_FORMAT_RGBA;
  Rgba8 image{static_cast<int>(png.width), static_cast<int>(png.height), {}};
  image.pixels.resize(size_t{png.width} * png.height * 4);
  if (!png_image_finish_read(&png, nullptr, image.pixels.data(), 0, nullptr)) {
    throw Error(ErrorCode::format, fmt::format("{}: damaged PNG file: {}", path.string(), png.message));
  }
  return image;
}

void write_png_rgba8(const std::filesystem::path& path, const Rgba8& image) {
  PngImage png;
  png.width = static_cast<png_uint_32>(image.width);
  png.height = static_cast<png_uint_32>(image.height);
  png.format = PNG_FORMAT_RGBA;
  png_alloc_size_t size = PNG_IMAGE_PNG_SIZE_MAX(png);
  std::vector<uint8_t> bytes(size);
  if (!png_image_write_to_memory(&png, bytes.data(), &size, 0, image.pixels.data(), 0, nullptr)) {
    throw Error(ErrorCode::internal, fmt::format("{}: PNG encoding failed: {}", path.string(), png.message));
  }
  bytes.resize(size);
  write_bytes(path, bytes);
}

}  // namespace vkflux
