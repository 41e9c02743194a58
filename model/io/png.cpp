#include "model/io/png.h"

#include <fmt/format.h>
#include <png.h>

#include <algorithm>
#include <csetjmp>
#include <cstring>
#include <memory>

#include "model/io/exif.h"
#include "model/io/file.h"
#include "model/io/picture.h"
#include "vk/error.h"

namespace vkflux::io {
namespace {

constexpr uint32_t kMaxSide = 16384;

struct Fault {
  char text[160] = "";
};

// libpng reports errors by longjmp: the functions that it can leave this way hold nothing with a destructor.
void on_error(png_structp png, png_const_charp message) {
  auto* fault = static_cast<Fault*>(png_get_error_ptr(png));
  std::snprintf(fault->text, sizeof fault->text, "%s", message);
  png_longjmp(png, 1);
}
void on_warning(png_structp, png_const_charp) {}

struct Source {
  const char* data;
  size_t size, at;
};
void on_read(png_structp png, png_bytep out, size_t n) {
  auto* s = static_cast<Source*>(png_get_io_ptr(png));
  if (n > s->size - s->at) png_error(png, "the file ends early");
  std::memcpy(out, s->data + s->at, n);
  s->at += n;
}
void on_write(png_structp png, png_bytep data, size_t n) {
  bool written = true;
  try {
    static_cast<std::string*>(png_get_io_ptr(png))->append(reinterpret_cast<const char*>(data), n);
  } catch (...) {  // C code is above us
    written = false;
  }
  if (!written) png_error(png, "out of memory");
}
void on_flush(png_structp) {}

struct Reader {
  Fault fault;
  png_structp png = nullptr;
  png_infop info = nullptr;
  Reader() {
    png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &fault, on_error, on_warning);
    if (png) info = png_create_info_struct(png);
    if (!info) throw Error(ErrorCode::out_of_host_memory, "no memory for libpng");
  }
  ~Reader() { png_destroy_read_struct(&png, &info, nullptr); }
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;
};

// Chunks that may unpack to far more than the file holds; libpng's own default is 1000 of 8 MB.
constexpr int kMaxChunks = 64;
constexpr size_t kMaxChunkBytes = 4 << 20;
constexpr png_byte kPackedChunks[] = "iCCP\0tEXt\0zTXt\0iTXt";

bool read_header(Reader& r, Source& source, bool with_text) {
  if (setjmp(png_jmpbuf(r.png))) return false;
  png_set_user_limits(r.png, kMaxSide, kMaxSide);
  png_set_chunk_cache_max(r.png, kMaxChunks);
  png_set_chunk_malloc_max(r.png, kMaxChunkBytes);
  png_set_keep_unknown_chunks(r.png, PNG_HANDLE_CHUNK_NEVER, kPackedChunks, with_text ? 1 : 4);
  png_set_read_fn(r.png, &source, on_read);
  png_read_info(r.png, r.info);
  return true;
}

bool read_pixels(Reader& r, png_bytep* rows) {
  if (setjmp(png_jmpbuf(r.png))) return false;
  png_set_expand(r.png);
  png_set_scale_16(r.png);
  png_set_gray_to_rgb(r.png);
  png_set_add_alpha(r.png, 0xff, PNG_FILLER_AFTER);
  png_set_interlace_handling(r.png);
  png_read_update_info(r.png, r.info);
  if (png_get_rowbytes(r.png, r.info) != 4u * png_get_image_width(r.png, r.info))
    png_error(r.png, "unknown pixel format");
  png_read_image(r.png, rows);
  png_read_end(r.png, r.info);
  return true;
}

// tEXt and zTXt are Latin-1, iTXt is UTF-8.
std::string from_latin1(const std::string& text) {
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x80) {
      out += c;
    } else {
      out += static_cast<char>(0xC0 | byte >> 6);
      out += static_cast<char>(0x80 | (byte & 0x3F));
    }
  }
  return out;
}

[[noreturn]] void bad(const std::string& origin, const Fault& fault) {
  throw Error(ErrorCode::format, fmt::format("{}: bad PNG: {}", origin, fault.text));
}

Image8 decode(const std::string& bytes, const std::string& origin, PngText* text) {
  Reader r;
  Source source{bytes.data(), bytes.size(), 0};
  if (!read_header(r, source, text != nullptr)) bad(origin, r.fault);
  const uint64_t width = png_get_image_width(r.png, r.info), height = png_get_image_height(r.png, r.info);
  check_picture_size(origin, width, height);
  constexpr uint64_t kMaxRatio = 1032;  // deflate's best
  if (height * png_get_rowbytes(r.png, r.info) / kMaxRatio > bytes.size()) {
    throw Error(ErrorCode::format, fmt::format("{}: bad PNG: {} bytes can't hold {}x{} pixels", origin,
                                               bytes.size(), width, height));
  }
  Image8 image{static_cast<int>(width), static_cast<int>(height), std::vector<uint8_t>(width * height * 4)};
  std::vector<png_bytep> rows(height);
  for (size_t y = 0; y < height; ++y) rows[y] = image.rgba.data() + y * width * 4;
  if (!read_pixels(r, rows.data())) bad(origin, r.fault);
  if (text) {
    png_textp list = nullptr;
    int n = 0;
    png_get_text(r.png, r.info, &list, &n);
    for (int i = 0; i < n; ++i) {
      const std::string value = list[i].text ? list[i].text : "";
      text->emplace_back(list[i].key,
                         list[i].compression >= PNG_ITXT_COMPRESSION_NONE ? value : from_latin1(value));
    }
  }
  return image;
}

struct Writer {
  Fault fault;
  png_structp png = nullptr;
  png_infop info = nullptr;
  Writer() {
    png = png_create_write_struct(PNG_LIBPNG_VER_STRING, &fault, on_error, on_warning);
    if (png) info = png_create_info_struct(png);
    if (!info) throw Error(ErrorCode::out_of_host_memory, "no memory for libpng");
  }
  ~Writer() { png_destroy_write_struct(&png, &info); }
  Writer(const Writer&) = delete;
  Writer& operator=(const Writer&) = delete;
};

bool write_all(Writer& w, std::string& out, int width, int height, bool alpha, png_textp text, int texts,
               png_bytep* rows) {
  if (setjmp(png_jmpbuf(w.png))) return false;
  png_set_write_fn(w.png, &out, on_write, on_flush);
  png_set_IHDR(w.png, w.info, static_cast<png_uint_32>(width), static_cast<png_uint_32>(height), 8,
               alpha ? PNG_COLOR_TYPE_RGBA : PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE,
               PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
  if (texts) png_set_text(w.png, w.info, text, texts);
  png_write_info(w.png, w.info);
  png_write_image(w.png, rows);
  png_write_end(w.png, w.info);
  return true;
}

uint32_t big_endian(std::string_view bytes, size_t at) {
  uint32_t value = 0;
  for (size_t i = 0; i < 4; ++i) value = value << 8 | static_cast<unsigned char>(bytes[at + i]);
  return value;
}

}  // namespace

PictureFacts probe_png(std::string_view bytes, const std::string& origin) {
  constexpr size_t kSignature = 8, kHead = 13, kFrame = 12;  // a chunk's length, type and checksum
  if (bytes.size() < kSignature + kFrame + kHead || bytes.substr(kSignature + 4, 4) != "IHDR")
    throw Error(ErrorCode::format, fmt::format("{}: bad PNG: it doesn't begin with a header", origin));
  constexpr size_t kAt = kSignature + 8;
  const uint32_t width = big_endian(bytes, kAt), height = big_endian(bytes, kAt + 4);
  check_picture_size(origin, width, height);
  const unsigned depth = static_cast<unsigned char>(bytes[kAt + 8]),
                 colour = static_cast<unsigned char>(bytes[kAt + 9]);
  PictureFacts facts;
  facts.format = "PNG";
  facts.width = static_cast<int>(width);
  facts.height = static_cast<int>(height);
  facts.deep = depth > 8;
  facts.indexed = colour == PNG_COLOR_TYPE_PALETTE || depth == 1;
  facts.alpha = (colour & PNG_COLOR_MASK_ALPHA) != 0;
  for (size_t at = kSignature; bytes.size() - at >= kFrame;) {
    const size_t length = big_endian(bytes, at);
    if (length > bytes.size() - at - kFrame) break;  // decoding says what is wrong
    const std::string_view type = bytes.substr(at + 4, 4), data = bytes.substr(at + 8, length);
    if (type == "tRNS") facts.alpha = true;
    if (type == "iCCP") facts.profile = true;
    if (type == "acTL") facts.animated = true;
    if (type == "eXIf") facts.orientation = exif_orientation(data);
    at += kFrame + length;
  }
  return facts;
}

Image8 decode_png(const std::string& bytes, const std::string& origin) {
  return decode(bytes, origin, nullptr);
}

Image8 read_png(const std::string& path) {
  return decode_png(read_file(path, kMaxPictureFile), path);
}

PngText decode_png_text(const std::string& bytes, const std::string& origin) {
  PngText text;
  decode(bytes, origin, &text);
  return text;
}

PngText read_png_text(const std::string& path) {
  return decode_png_text(read_file(path, kMaxPictureFile), path);
}

std::string encode_png(const Image8& image, const PngText& text) {
  const size_t n = static_cast<size_t>(image.width) * static_cast<size_t>(image.height);
  if (image.width <= 0 || image.height <= 0 || image.rgba.size() != 4 * n) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("{} bytes for a picture of {}x{}", image.rgba.size(), image.width, image.height));
  }
  bool alpha = false;
  for (size_t i = 0; i < n && !alpha; ++i) alpha = image.rgba[4 * i + 3] != 255;
  const size_t channels = alpha ? 4 : 3;
  std::vector<uint8_t> pixels(n * channels);
  for (size_t i = 0; i < n; ++i) std::copy_n(&image.rgba[4 * i], channels, &pixels[channels * i]);
  std::vector<png_bytep> rows;
  for (int y = 0; y < image.height; ++y) {
    rows.push_back(pixels.data() + static_cast<size_t>(y) * static_cast<size_t>(image.width) * channels);
  }
  std::vector<std::pair<std::string, std::string>> copy(text.begin(), text.end());
  std::vector<png_text> list;
  for (auto& [key, value] : copy) {
    if (key.empty() || key.size() > 79 || value.find('\0') != std::string::npos) {
      throw Error(ErrorCode::invalid_argument,
                  fmt::format("PNG text \"{}\": a keyword has 1 to 79 characters, and its text no zero byte",
                              shown(key)));
    }
    png_text t{};
    // Readers that know only tEXt are common; it can carry ASCII.
    const bool ascii =
        std::all_of(value.begin(), value.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; });
    t.compression = ascii ? PNG_TEXT_COMPRESSION_NONE : PNG_ITXT_COMPRESSION_NONE;
    t.key = key.data();
    t.text = value.data();
    list.push_back(t);
  }
  Writer w;
  std::string out;
  if (!write_all(w, out, image.width, image.height, alpha, list.data(), static_cast<int>(list.size()),
                 rows.data())) {
    throw Error(ErrorCode::invalid_argument, fmt::format("can't encode a PNG: {}", w.fault.text));
  }
  return out;
}

void write_png(const std::string& path, const Image8& image, const PngText& text) {
  atomic_write(path, encode_png(image, text));
}

}  // namespace vkflux::io
