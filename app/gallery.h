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

struct GalleryCell {
  std::string png;                 // file bytes
  std::vector<std::string> lines;  // under it
};

struct GalleryRow {
  std::string title;
  std::vector<GalleryCell> cells;
};

std::string gallery_html(const GalleryInfo& info, const std::vector<GalleryPicture>& pictures);
/// Rows of pictures that belong together; a row scrolls when it is too long for the window.
std::string comparison_html(const GalleryInfo& info, const std::vector<GalleryRow>& rows);
std::string base64(const std::string& bytes);

}  // namespace vkflux
