// JPEG files through libjpeg.
#include <fmt/format.h>

#include <csetjmp>
#include <cstdio>  // jpeglib.h needs it
#include <cstdlib>
#include <iterator>
#include <vector>

#include <jerror.h>
#include <jpeglib.h>

#include "model/io/exif.h"
#include "model/io/picture.h"
#include "model/io/picture_file.h"
#include "vk/error.h"

namespace vkflux::io {
namespace {

constexpr int kExif = JPEG_APP0 + 1, kProfile = JPEG_APP0 + 2, kMaxMarkerBytes = 0xFFFF;
constexpr int kMaxScans = 100;  // a progressive file may have any number, each a pass over all pixels

struct Faults {
  jpeg_error_mgr manager;  // first, so that libjpeg's pointer to it is one to all
  std::jmp_buf jump;
  char text[JMSG_LENGTH_MAX];
};

// libjpeg's own functions end the process or print. The functions that are left by longjmp hold nothing with
// a destructor.
void on_error(j_common_ptr info) {
  auto* faults = reinterpret_cast<Faults*>(info->err);
  info->err->format_message(info, faults->text);
  std::longjmp(faults->jump, 1);
}

/// A damaged picture is a warning for libjpeg, which makes up what is missing; only slips that leave the
/// pixels as they were are let pass.
void on_warning(j_common_ptr info, int level) {
  if (level >= 0) return;
  switch (info->err->msg_code) {
    case JWRN_EXTRANEOUS_DATA:
    case JWRN_JFIF_MAJOR:
    case JWRN_ADOBE_XFORM:
    case JWRN_TOO_MUCH_DATA:
#ifdef JWRN_BOGUS_ICC
    case JWRN_BOGUS_ICC:
#endif
      return;
    default:
      on_error(info);
  }
}

void on_progress(j_common_ptr info) {
  if (reinterpret_cast<j_decompress_ptr>(info)->input_scan_number <= kMaxScans) return;
  auto* faults = reinterpret_cast<Faults*>(info->err);
  std::snprintf(faults->text, sizeof faults->text, "more than %d scans", kMaxScans);
  std::longjmp(faults->jump, 1);
}

struct Reader {
  Faults faults{};
  jpeg_progress_mgr progress{};
  jpeg_decompress_struct info{};
  Reader() {
    info.err = jpeg_std_error(&faults.manager);
    faults.manager.error_exit = on_error;
    faults.manager.emit_message = on_warning;
  }
  ~Reader() { jpeg_destroy_decompress(&info); }
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;
};

bool read_header(Reader& r, std::string_view bytes) {
  if (setjmp(r.faults.jump)) return false;
  jpeg_create_decompress(&r.info);
  r.progress.progress_monitor = on_progress;
  r.info.progress = &r.progress;
  jpeg_mem_src(&r.info, reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size());
  jpeg_save_markers(&r.info, kExif, kMaxMarkerBytes);
  jpeg_save_markers(&r.info, kProfile, kMaxMarkerBytes);
  jpeg_read_header(&r.info, TRUE);
  return true;
}

bool is_cmyk(const jpeg_decompress_struct& info) {
  return info.jpeg_color_space == JCS_CMYK || info.jpeg_color_space == JCS_YCCK;
}

/// Rows of RGB or CMYK, one after the other, into RGBA.
bool read_pixels(Reader& r, JSAMPROW row, uint8_t* rgba) {
  if (setjmp(r.faults.jump)) return false;
  r.info.out_color_space = is_cmyk(r.info) ? JCS_CMYK : JCS_RGB;
  jpeg_start_decompress(&r.info);
  while (r.info.output_scanline < r.info.output_height) {
    uint8_t* out = rgba + size_t{4} * r.info.output_scanline * r.info.output_width;
    jpeg_read_scanlines(&r.info, &row, 1);
    for (JDIMENSION x = 0; x < r.info.output_width; ++x, out += 4) {
      if (r.info.out_color_space == JCS_RGB) {
        for (int c = 0; c < 3; ++c) out[c] = row[3 * x + static_cast<JDIMENSION>(c)];
      } else {
        // Adobe's programs, and most others after them, store how little ink there is.
        for (int c = 0; c < 3; ++c) {
          const int ink = row[4 * x + static_cast<JDIMENSION>(c)], black = row[4 * x + 3];
          const int light = r.info.saw_Adobe_marker ? ink * black : (255 - ink) * (255 - black);
          out[c] = static_cast<uint8_t>((light + 127) / 255);
        }
      }
      out[3] = 255;
    }
  }
  return true;
}

constexpr std::string_view kExifHeader("Exif\0\0", 6), kXmpHeader("http://ns.adobe.com/xap/1.0/\0", 29);

struct Writer {
  Faults faults{};
  jpeg_compress_struct info{};
  unsigned char* bytes = nullptr;
  unsigned long size = 0;
  Writer() {
    info.err = jpeg_std_error(&faults.manager);
    faults.manager.error_exit = on_error;
  }
  ~Writer() {
    jpeg_destroy_compress(&info);
    std::free(bytes);
  }
  Writer(const Writer&) = delete;
  Writer& operator=(const Writer&) = delete;
};

bool write_all(Writer& w, const Image8& image, int quality, const std::string* segments, size_t n,
               JSAMPLE* row) {
  if (setjmp(w.faults.jump)) return false;
  jpeg_create_compress(&w.info);
  jpeg_mem_dest(&w.info, &w.bytes, &w.size);
  w.info.image_width = static_cast<JDIMENSION>(image.width);
  w.info.image_height = static_cast<JDIMENSION>(image.height);
  w.info.input_components = 3;
  w.info.in_color_space = JCS_RGB;
  jpeg_set_defaults(&w.info);
  jpeg_set_quality(&w.info, quality, TRUE);
  constexpr int kFine = 90;  // from here on colour keeps the resolution of brightness
  if (quality >= kFine) w.info.comp_info[0].h_samp_factor = w.info.comp_info[0].v_samp_factor = 1;
  jpeg_start_compress(&w.info, TRUE);
  for (size_t i = 0; i < n; ++i) {
    if (segments[i].empty()) continue;
    jpeg_write_marker(&w.info, kExif, reinterpret_cast<const JOCTET*>(segments[i].data()),
                      static_cast<unsigned>(segments[i].size()));
  }
  while (w.info.next_scanline < w.info.image_height) {
    const uint8_t* p = image.rgba.data() + size_t{4} * w.info.next_scanline * w.info.image_width;
    for (size_t x = 0; x < w.info.image_width; ++x) {
      for (size_t c = 0; c < 3; ++c) row[3 * x + c] = p[4 * x + c];
    }
    jpeg_write_scanlines(&w.info, &row, 1);
  }
  jpeg_finish_compress(&w.info);
  return true;
}

[[noreturn]] void bad(const std::string& origin, const Reader& r) {
  throw Error(ErrorCode::format, fmt::format("{}: bad JPEG: {}", origin, r.faults.text));
}

void open(Reader& r, std::string_view bytes, const std::string& origin) {
  if (!read_header(r, bytes)) bad(origin, r);
  check_picture_size(origin, r.info.image_width, r.info.image_height);
  // A block of 8x8 takes a bit at least, and of a picture's channels one has all of its blocks.
  constexpr uint64_t kMaxPixelsPerByte = 64 * 8;
  if (!r.info.arith_code &&
      uint64_t{r.info.image_width} * r.info.image_height / kMaxPixelsPerByte > bytes.size()) {
    throw Error(ErrorCode::format, fmt::format("{}: bad JPEG: {} bytes can't hold {}x{} pixels", origin,
                                               bytes.size(), r.info.image_width, r.info.image_height));
  }
}

}  // namespace

PictureFacts probe_jpeg(std::string_view bytes, const std::string& origin) {
  Reader r;
  open(r, bytes, origin);
  PictureFacts facts;
  facts.format = "JPEG";
  facts.width = static_cast<int>(r.info.image_width);
  facts.height = static_cast<int>(r.info.image_height);
  facts.cmyk = is_cmyk(r.info);
  for (auto* marker = r.info.marker_list; marker; marker = marker->next) {
    const std::string_view data(reinterpret_cast<const char*>(marker->data), marker->data_length);
    if (marker->marker == kExif && data.starts_with("Exif") && facts.orientation == 1)
      facts.orientation = exif_orientation(data);
    if (marker->marker == kProfile && data.starts_with("ICC_PROFILE")) facts.profile = true;
  }
  return facts;
}

Image8 decode_jpeg(std::string_view bytes, const std::string& origin) {
  Reader r;
  open(r, bytes, origin);
  const size_t width = r.info.image_width, height = r.info.image_height;
  std::vector<JSAMPLE> row(4 * width);
  Image8 image{static_cast<int>(width), static_cast<int>(height), std::vector<uint8_t>(4 * width * height)};
  if (!read_pixels(r, row.data(), image.rgba.data())) bad(origin, r);
  return image;
}

MetadataBlocks jpeg_metadata(std::string_view bytes, const std::string& origin) {
  Reader r;
  open(r, bytes, origin);
  MetadataBlocks out;
  for (auto* marker = r.info.marker_list; marker; marker = marker->next) {
    const std::string_view data(reinterpret_cast<const char*>(marker->data), marker->data_length);
    if (marker->marker != kExif) continue;
    if (data.starts_with(kExifHeader) && out.exif.empty()) out.exif = data.substr(kExifHeader.size());
    if (data.starts_with(kXmpHeader) && out.xmp.empty()) out.xmp = data.substr(kXmpHeader.size());
  }
  return out;
}

std::string encode_jpeg(const Image8& image, int quality, const MetadataBlocks& blocks) {
  const std::string segments[] = {blocks.exif.empty() ? "" : std::string(kExifHeader) + blocks.exif,
                                  blocks.xmp.empty() ? "" : std::string(kXmpHeader) + blocks.xmp};
  std::vector<JSAMPLE> row(3 * static_cast<size_t>(image.width));
  Writer w;
  if (!write_all(w, image, quality, segments, std::size(segments), row.data()))
    throw Error(ErrorCode::invalid_argument, fmt::format("can't encode a JPEG: {}", w.faults.text));
  return {reinterpret_cast<const char*>(w.bytes), w.size};
}

}  // namespace vkflux::io
