// WebP files through libwebp.
#include <fmt/format.h>
#include <webp/decode.h>
#include <webp/demux.h>

#include <memory>

#include "model/io/exif.h"
#include "model/io/picture.h"
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

}  // namespace vkflux::io
