// One self-contained HTML page that shows sampled pictures.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace vkflux {

struct GalleryPicture {
  std::string prompt;
  uint64_t seed = 0;
  std::string png;  // file bytes
};

struct GalleryInfo {
  std::string device, driver, model;
  int64_t steps = 0;
  float cfg = 1, guidance = 0;
  int64_t width = 0, height = 0;
  double encode_s = 0, denoise_s = 0, decode_s = 0;
};

std::string gallery_html(const GalleryInfo& info, const std::vector<GalleryPicture>& pictures);
std::string base64(const std::string& bytes);
std::string html_escape(const std::string& text);

}  // namespace vkflux
