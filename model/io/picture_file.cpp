#include "model/io/picture_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>

#include "model/io/exif.h"
#include "model/io/file.h"
#include "model/io/json.h"
#include "model/io/picture.h"
#include "vk/error.h"

namespace vkflux::io {
namespace {

constexpr std::string_view kParameters = "parameters";
constexpr size_t kJpegSegment = 65000;  // bytes of a text in a segment, whose length has 16 bits

// An XMP packet with one element for each text. Elements are named by their place: keywords may be anything.
constexpr std::string_view kOpen = "<vkflux:text vkflux:keyword=\"", kClose = "</vkflux:text>";

std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '&') {
      out += "&amp;";
    } else if (c == '<') {
      out += "&lt;";
    } else if (c == '>') {
      out += "&gt;";
    } else if (c == '"') {
      out += "&quot;";
    } else if (c == '\r') {
      out += "&#13;";
    } else {
      out += c;
    }
  }
  return out;
}

std::string unescaped(std::string_view text) {
  constexpr std::pair<std::string_view, char> kNames[] = {
      {"&amp;", '&'}, {"&lt;", '<'}, {"&gt;", '>'}, {"&quot;", '"'}, {"&#13;", '\r'}};
  std::string out;
  for (size_t i = 0; i < text.size();) {
    const auto* name = std::find_if(std::begin(kNames), std::end(kNames),
                                    [&](const auto& n) { return text.substr(i).starts_with(n.first); });
    const bool named = name != std::end(kNames);
    out += named ? name->second : text[i];
    i += named ? name->first.size() : 1;
  }
  return out;
}

std::string xmp_of(const PngText& text) {
  std::string out;
  for (const auto& [keyword, value] : text) {
    if (keyword == kParameters) continue;
    out += fmt::format("{}{}\">{}{}\n", kOpen, escaped(keyword), escaped(valid_utf8(value)), kClose);
  }
  if (out.empty()) return {};
  return fmt::format(
      "<?xpacket begin=\"\xEF\xBB\xBF\" id=\"W5M0MpCehiHzreSzNTczkc9d\"?>\n"
      "<x:xmpmeta xmlns:x=\"adobe:ns:meta/\"><rdf:RDF "
      "xmlns:rdf=\"http://www.w3.org/1999/02/22-rdf-syntax-ns#\">"
      "<rdf:Description rdf:about=\"\" "
      "xmlns:vkflux=\"urn:vkflux\">\n{}</rdf:Description></rdf:RDF></x:xmpmeta>"
      "<?xpacket end=\"w\"?>",
      out);
}

void add_xmp_text(std::string_view xmp, PngText& out) {
  constexpr size_t kMostTexts = 64;
  for (size_t at = xmp.find(kOpen); at != std::string_view::npos && out.size() < kMostTexts;
       at = xmp.find(kOpen, at)) {
    at += kOpen.size();
    const size_t quote = xmp.find("\">", at),
                 end = quote == std::string_view::npos ? quote : xmp.find(kClose, quote);
    if (end == std::string_view::npos) return;
    out.emplace_back(unescaped(xmp.substr(at, quote - at)),
                     unescaped(xmp.substr(quote + 2, end - quote - 2)));
    at = end;
  }
}

}  // namespace

std::optional<PictureFormat> picture_format(std::string_view name) {
  const size_t dot = name.find_last_of("./");
  if (dot == std::string_view::npos || name[dot] != '.') return {};
  std::string end(name.substr(dot + 1));
  for (char& c : end) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  if (end == "png") return PictureFormat::png;
  if (end == "jpg" || end == "jpeg") return PictureFormat::jpeg;
  if (end == "webp") return PictureFormat::webp;
  return {};
}

std::string encode_picture(const Image8& image, PictureFormat format, int quality, const PngText& text,
                           std::vector<std::string>* left_out) {
  if (format == PictureFormat::png) return encode_png(image, text);
  const size_t n = static_cast<size_t>(image.width) * static_cast<size_t>(image.height);
  if (image.width <= 0 || image.height <= 0 || image.rgba.size() != 4 * n || quality < 1 || quality > 100) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("{} bytes for a picture of {}x{} in quality {}", image.rgba.size(), image.width,
                            image.height, quality));
  }
  MetadataBlocks blocks;
  PngText others;
  for (const auto& [keyword, value] : text) {
    const bool parameters = keyword == kParameters;
    const std::string block = parameters ? exif_comment(value) : std::string();
    const bool fits = format != PictureFormat::jpeg ||
                      (parameters ? block : xmp_of({{keyword, value}})).size() <= kJpegSegment;
    if (!fits) {
      if (left_out) left_out->push_back(keyword);
    } else if (parameters) {
      blocks.exif = block;
    } else {
      others.emplace_back(keyword, value);
    }
  }
  blocks.xmp = xmp_of(others);
  if (format == PictureFormat::jpeg && blocks.xmp.size() > kJpegSegment) {
    blocks.xmp.clear();
    for (const auto& [keyword, value] : others) {
      if (left_out) left_out->push_back(keyword);
    }
  }
  return format == PictureFormat::jpeg ? encode_jpeg(image, quality, blocks)
                                       : encode_webp(image, quality, blocks);
}

PngText picture_text(const std::string& bytes, const std::string& origin) {
  const PictureFacts facts = probe_picture(bytes, origin);
  if (facts.format == "PNG") return decode_png_text(bytes, origin);
  const MetadataBlocks blocks =
      facts.format == "JPEG" ? jpeg_metadata(bytes, origin) : webp_metadata(bytes, origin);
  PngText out;
  for (const auto& [tag, text] : exif_texts(blocks.exif)) {
    const size_t colon = text.find(':');
    if (tag == ExifText::comment) {
      out.emplace_back(kParameters, text);
    } else if (colon != std::string::npos && colon > 0 && colon < 80) {
      out.emplace_back(text.substr(0, colon), text.substr(colon + 1));
    }
  }
  add_xmp_text(blocks.xmp, out);
  return out;
}

PngText read_picture_text(const std::string& path) {
  return picture_text(read_file(path, kMaxPictureFile), path);
}

}  // namespace vkflux::io
