#include "tests/harness/pictures.h"

#include <webp/encode.h>

#include <cstdio>
#include <cstdlib>

#include <jpeglib.h>

namespace vkflux::test {
namespace {

std::string little(uint32_t v, size_t bytes) {
  std::string out;
  for (size_t i = 0; i < bytes; ++i) out += static_cast<char>(v >> (8 * i));
  return out;
}

std::string chunk(const std::string& type, const std::string& data) {
  return type + little(static_cast<uint32_t>(data.size()), 4) + data + std::string(data.size() % 2, '\0');
}

std::string riff(const std::string& chunks) {
  return "RIFF" + little(static_cast<uint32_t>(chunks.size() + 4), 4) + "WEBP" + chunks;
}

std::string extended(uint32_t flags, const io::Image8& image) {
  return chunk("VP8X", little(flags, 4) + little(static_cast<uint32_t>(image.width - 1), 3) +
                           little(static_cast<uint32_t>(image.height - 1), 3));
}

/// The chunk VP8L with the picture.
std::string lossless(const io::Image8& image) {
  uint8_t* bytes = nullptr;
  const size_t n =
      WebPEncodeLosslessRGBA(image.rgba.data(), image.width, image.height, 4 * image.width, &bytes);
  const std::string file(reinterpret_cast<const char*>(bytes), n);
  WebPFree(bytes);
  return file.substr(12);
}

}  // namespace

io::Image8 flat(int width, int height, uint8_t r, uint8_t g, uint8_t b, uint8_t a) {
  io::Image8 out{width, height, {}};
  for (int i = 0; i < width * height; ++i) out.rgba.insert(out.rgba.end(), {r, g, b, a});
  return out;
}

std::string exif_of(int orientation, bool big_endian) {
  const auto number = [&](uint32_t v, size_t bytes) {
    const std::string le = little(v, bytes);
    return big_endian ? std::string(le.rbegin(), le.rend()) : le;
  };
  // One directory at 8 with an entry before the orientation's: the maker, an offset into nowhere.
  return std::string("Exif\0\0", 6) + (big_endian ? "MM" : "II") + number(42, 2) + number(8, 4) +
         number(2, 2) + number(0x010F, 2) + number(2, 2) + number(99, 4) + number(0xFFFFFFF0, 4) +
         number(0x0112, 2) + number(3, 2) + number(1, 4) + number(static_cast<uint32_t>(orientation), 2) +
         number(0, 2) + number(0, 4);
}

std::string jpeg_of(const io::Image8& image, const JpegOptions& o) {
  jpeg_compress_struct info;
  jpeg_error_mgr errors;
  info.err = jpeg_std_error(&errors);
  jpeg_create_compress(&info);
  unsigned char* bytes = nullptr;
  unsigned long size = 0;
  jpeg_mem_dest(&info, &bytes, &size);
  info.image_width = static_cast<JDIMENSION>(image.width);
  info.image_height = static_cast<JDIMENSION>(image.height);
  info.input_components = o.cmyk ? 4 : o.grey ? 1 : 3;
  info.in_color_space = o.cmyk ? JCS_CMYK : o.grey ? JCS_GRAYSCALE : JCS_RGB;
  jpeg_set_defaults(&info);
  jpeg_set_quality(&info, o.quality, TRUE);
  if (o.progressive) jpeg_simple_progression(&info);
  jpeg_start_compress(&info, TRUE);
  const auto marker = [&](int code, const std::string& data) {
    jpeg_write_marker(&info, code, reinterpret_cast<const JOCTET*>(data.data()),
                      static_cast<unsigned>(data.size()));
  };
  if (!o.exif.empty()) marker(JPEG_APP0 + 1, o.exif);
  if (o.profile) marker(JPEG_APP0 + 2, std::string("ICC_PROFILE\0\1\1 no profile", 25));
  for (int y = 0; y < image.height; ++y) {
    std::vector<JSAMPLE> row;
    for (int x = 0; x < image.width; ++x) {
      const uint8_t* p = &image.rgba[static_cast<size_t>(4 * (y * image.width + x))];
      if (o.grey) {
        row.push_back(p[0]);
      } else {
        row.insert(row.end(), p, p + 3);
        if (o.cmyk) row.push_back(255);  // stored as Adobe does: 255 is no ink
      }
    }
    JSAMPROW rows = row.data();
    jpeg_write_scanlines(&info, &rows, 1);
  }
  jpeg_finish_compress(&info);
  jpeg_destroy_compress(&info);
  std::string out(reinterpret_cast<const char*>(bytes), size);
  std::free(bytes);
  return out;
}

std::string webp_of(const io::Image8& image, const std::vector<std::pair<std::string, std::string>>& chunks) {
  if (chunks.empty()) return riff(lossless(image));
  std::string front, back;
  uint32_t flags = 0x10;  // alpha
  for (const auto& [type, data] : chunks) {
    flags |= type == "ICCP" ? 0x20u : type == "EXIF" ? 0x08u : 0u;
    (type == "ICCP" ? front : back) += chunk(type, data);
  }
  return riff(extended(flags, image) + front + lossless(image) + back);
}

std::string animated_webp(const std::vector<io::Image8>& frames) {
  std::string chunks = extended(0x12, frames[0]) + chunk("ANIM", little(0xFFFFFFFF, 4) + little(0, 2));
  for (const io::Image8& frame : frames) {
    chunks += chunk("ANMF", little(0, 3) + little(0, 3) + little(static_cast<uint32_t>(frame.width - 1), 3) +
                                little(static_cast<uint32_t>(frame.height - 1), 3) + little(100, 3) +
                                little(2, 1) + lossless(frame));
  }
  return riff(chunks);
}

}  // namespace vkflux::test
