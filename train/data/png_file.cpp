#include "train/data/png_file.h"

#include <fmt/format.h>
#include <png.h>

#include "model/io/file.h"
#include "vk/error.h"

namespace vkflux {
namespace {

constexpr uint64_t kMaxPngBytes = 256ull << 20;
constexpr png_uint_32 kMaxPngSide = 16384;
constexpr size_t kMaxPngPixels = size_t{64} << 20;

struct PngImage : png_image {
  PngImage() : png_image{} { version = PNG_IMAGE_VERSION; }
  ~PngImage() { png_image_free(this); }
  PngImage(const PngImage&) = delete;
  PngImage& operator=(const PngImage&) = delete;
};

}  // namespace

Rgba8 read_png_rgba8(const std::filesystem::path& path) {
  const std::string bytes = io::read_file(path.string(), kMaxPngBytes);
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
  std::string bytes(size, '\0');
  if (!png_image_write_to_memory(&png, bytes.data(), &size, 0, image.pixels.data(), 0, nullptr)) {
    throw Error(ErrorCode::internal, fmt::format("{}: PNG encoding failed: {}", path.string(), png.message));
  }
  bytes.resize(size);
  io::atomic_write(path.string(), bytes);
}

}  // namespace vkflux
