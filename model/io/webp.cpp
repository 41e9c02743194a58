// WebP files through libwebp.
#include <fmt/format.h>
#include <webp/decode.h>
#include <webp/demux.h>
#include <webp/encode.h>

#include <memory>

#include "model/io/exif.h"
#include "model/io/picture.h"
#include "model/io/picture_file.h"
#include "vk/error.h"

namespace vkflux::io {
namespace {

[[noreturn]] void bad(const std::string& origin, std::string_view what) {
  throw Error(ErrorCode::format, fmt::format("{}: bad WebP: {}", origin, what));
}

const uint8_t* data(std::string_view bytes) {
  return reinterpret_cast<const uint8_t*>(bytes.data());
}

WebPBitstreamFeatures features(std::string_view bytes, const std::string& origin) {
  WebPBitstreamFeatures f;
  if (WebPGetFeatures(data(bytes), bytes.size(), &f) != VP8_STATUS_OK) bad(origin, "its header is damaged");
  check_picture_size(origin, static_cast<uint64_t>(f.width), static_cast<uint64_t>(f.height));
  return f;
}

/// The first picture of an animation, on its canvas.
Image8 first_frame(std::string_view bytes, const std::string& origin) {
  const WebPData file{data(bytes), bytes.size()};
  const std::unique_ptr<WebPAnimDecoder, void (*)(WebPAnimDecoder*)> decoder(
      WebPAnimDecoderNew(&file, nullptr), WebPAnimDecoderDelete);
  WebPAnimInfo info;
  uint8_t* pixels = nullptr;
  int time = 0;
  if (!decoder || !WebPAnimDecoderGetInfo(decoder.get(), &info) ||
      !WebPAnimDecoderGetNext(decoder.get(), &pixels, &time)) {
    bad(origin, "its first picture ends early, is damaged or too large for the memory");
  }
  const size_t n = size_t{4} * info.canvas_width * info.canvas_height;
  return {static_cast<int>(info.canvas_width), static_cast<int>(info.canvas_height), {pixels, pixels + n}};
}

}  // namespace

PictureFacts probe_webp(std::string_view bytes, const std::string& origin) {
  const WebPBitstreamFeatures f = features(bytes, origin);
  PictureFacts facts;
  facts.format = "WebP";
  facts.width = f.width;
  facts.height = f.height;
  facts.alpha = f.has_alpha != 0;
  facts.animated = f.has_animation != 0;
  const WebPData file{data(bytes), bytes.size()};
  const std::unique_ptr<WebPDemuxer, void (*)(WebPDemuxer*)> demuxer(WebPDemux(&file), WebPDemuxDelete);
  if (!demuxer) bad(origin, "it ends early or is damaged");
  const uint32_t flags = WebPDemuxGetI(demuxer.get(), WEBP_FF_FORMAT_FLAGS);
  facts.profile = (flags & ICCP_FLAG) != 0;
  WebPChunkIterator chunk;
  if (WebPDemuxGetChunk(demuxer.get(), "EXIF", 1, &chunk)) {
    facts.orientation =
        exif_orientation({reinterpret_cast<const char*>(chunk.chunk.bytes), chunk.chunk.size});
    WebPDemuxReleaseChunkIterator(&chunk);
  }
  return facts;
}

Image8 decode_webp(std::string_view bytes, const std::string& origin) {
  if (features(bytes, origin).has_animation) return first_frame(bytes, origin);
  int width = 0, height = 0;
  // The library's memory, not ours: a lying header costs addresses, and no pages before there are pixels.
  const std::unique_ptr<uint8_t, void (*)(void*)> pixels(
      WebPDecodeRGBA(data(bytes), bytes.size(), &width, &height), WebPFree);
  if (!pixels) bad(origin, "it ends early, is damaged or too large for the memory");
  const size_t n = size_t{4} * static_cast<size_t>(width) * static_cast<size_t>(height);
  return {width, height, {pixels.get(), pixels.get() + n}};
}

MetadataBlocks webp_metadata(std::string_view bytes, const std::string& origin) {
  const WebPData file{data(bytes), bytes.size()};
  const std::unique_ptr<WebPDemuxer, void (*)(WebPDemuxer*)> demuxer(WebPDemux(&file), WebPDemuxDelete);
  if (!demuxer) bad(origin, "it ends early or is damaged");
  MetadataBlocks out;
  const auto chunk = [&](const char* name, std::string& to) {
    WebPChunkIterator c;
    if (!WebPDemuxGetChunk(demuxer.get(), name, 1, &c)) return;
    to.assign(reinterpret_cast<const char*>(c.chunk.bytes), c.chunk.size);
    WebPDemuxReleaseChunkIterator(&c);
  };
  chunk("EXIF", out.exif);
  chunk("XMP ", out.xmp);
  return out;
}

std::string encode_webp(const Image8& image, int quality, const MetadataBlocks& blocks) {
  constexpr int kLossless = 100, kMostSide = 16383;
  if (image.width > kMostSide || image.height > kMostSide) {
    throw Error(ErrorCode::invalid_argument, fmt::format("a WebP has at most {} pixels a side, not {}x{}",
                                                         kMostSide, image.width, image.height));
  }
  uint8_t* encoded = nullptr;
  const int stride = 4 * image.width;
  const size_t n = quality == kLossless ? WebPEncodeLosslessRGBA(image.rgba.data(), image.width, image.height,
                                                                 stride, &encoded)
                                        : WebPEncodeRGBA(image.rgba.data(), image.width, image.height, stride,
                                                         static_cast<float>(quality), &encoded);
  const std::unique_ptr<uint8_t, void (*)(void*)> owner(encoded, WebPFree);
  if (n == 0) throw Error(ErrorCode::out_of_host_memory, "can't encode a WebP");
  const std::string plain(reinterpret_cast<const char*>(encoded), n);
  if (blocks.exif.empty() && blocks.xmp.empty()) return plain;
  // The extended form: a header that says what there is, the picture's own chunks, then the notes.
  constexpr size_t kHead = 12;
  constexpr uint32_t kExif = 0x08, kXmp = 0x04, kAlpha = 0x10;
  const auto number = [](size_t v, size_t bytes) {
    std::string out;
    for (size_t i = 0; i < bytes; ++i) out += static_cast<char>(v >> (8 * i));
    return out;
  };
  const auto chunk = [&](const char* name, const std::string& content) {
    if (content.empty()) return std::string();
    return name + number(content.size(), 4) + content + std::string(content.size() % 2, '\0');
  };
  const uint32_t flags = (blocks.exif.empty() ? 0 : kExif) | (blocks.xmp.empty() ? 0 : kXmp) |
                         (features(plain, "WebP").has_alpha ? kAlpha : 0);
  std::string body = "WEBP";
  const size_t width = static_cast<size_t>(image.width), height = static_cast<size_t>(image.height);
  body += chunk("VP8X", number(flags, 4) + number(width - 1, 3) + number(height - 1, 3));
  // An encoder that needed alpha beside lossy pixels made the extended form itself.
  const std::string_view rest = std::string_view(plain).substr(kHead);
  constexpr size_t kExtendedHeader = 18;
  body += rest.starts_with("VP8X") ? rest.substr(kExtendedHeader) : rest;
  body += chunk("EXIF", blocks.exif) + chunk("XMP ", blocks.xmp);
  return "RIFF" + number(body.size(), 4) + body;
}

}  // namespace vkflux::io
