#include "app/contact_sheet.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>

#include "app/bitmap_font.h"
#include "vk/error.h"

namespace vkflux {
namespace {

constexpr int kGap = 6, kMinWidth = 144;  // 24 letters a line
constexpr int64_t kMaxSide = 16384, kMaxPixels = int64_t{64} << 20;

void paste(io::Image8& sheet, const io::Image8& p, int x0, int y0) {
  for (int y = 0; y < p.height; ++y) {
    const auto from = static_cast<size_t>(y) * static_cast<size_t>(p.width) * 4;
    const auto to =
        (static_cast<size_t>(y0 + y) * static_cast<size_t>(sheet.width) + static_cast<size_t>(x0)) * 4;
    std::copy_n(p.rgba.begin() + static_cast<ptrdiff_t>(from), p.width * 4,
                sheet.rgba.begin() + static_cast<ptrdiff_t>(to));
  }
}

}  // namespace

io::Image8 enlarged(const io::Image8& picture, int factor) {
  if (factor <= 1) return picture;
  io::Image8 out{picture.width * factor, picture.height * factor, {}};
  out.rgba.reserve(picture.rgba.size() * static_cast<size_t>(factor) * static_cast<size_t>(factor));
  for (int y = 0; y < out.height; ++y) {
    for (int x = 0; x < out.width; ++x) {
      const auto at = static_cast<ptrdiff_t>((y / factor) * picture.width + x / factor) * 4;
      out.rgba.insert(out.rgba.end(), picture.rgba.begin() + at, picture.rgba.begin() + at + 4);
    }
  }
  return out;
}

io::Image8 reduced(const io::Image8& picture, int factor) {
  if (factor <= 1) return picture;
  io::Image8 out{std::max(1, picture.width / factor), std::max(1, picture.height / factor), {}};
  for (int y = 0; y < out.height; ++y) {
    for (int x = 0; x < out.width; ++x) {
      const int x1 = std::min(picture.width, (x + 1) * factor),
                y1 = std::min(picture.height, (y + 1) * factor);
      const int n = (x1 - x * factor) * (y1 - y * factor);
      for (int c = 0; c < 4; ++c) {
        int sum = n / 2;
        for (int v = y * factor; v < y1; ++v) {
          for (int u = x * factor; u < x1; ++u)
            sum += picture.rgba[static_cast<size_t>(v * picture.width + u) * 4 + static_cast<size_t>(c)];
        }
        out.rgba.push_back(static_cast<uint8_t>(sum / n));
      }
    }
  }
  return out;
}

io::Image8 contact_sheet(const std::vector<SheetCell>& cells, int columns) {
  if (cells.empty()) throw Error(ErrorCode::invalid_argument, "a contact sheet of no pictures");
  columns = std::clamp(columns, 1, static_cast<int>(cells.size()));
  int width = 1, height = 1;
  for (const SheetCell& c : cells) {
    width = std::max(width, c.picture.width);
    height = std::max(height, c.picture.height);
  }
  const int factor = std::max(1, (kMinWidth + width - 1) / width);
  width *= factor;
  height *= factor;
  std::vector<std::vector<std::string>> lines;
  std::string missing;
  size_t most = 0;
  for (const SheetCell& c : cells) {
    std::vector<std::string> wrapped;
    for (const std::string& label : c.labels) {
      missing += undrawable(label);
      for (std::string& line : wrap_text(label, width / kGlyphWidth)) wrapped.push_back(std::move(line));
    }
    most = std::max(most, wrapped.size());
    lines.push_back(std::move(wrapped));
  }
  if (!missing.empty()) {
    spdlog::warn(
        "labels of the contact sheet: no font here has {}, so boxes stand for them; name one by VKFLUX_FONT, "
        "or "
        "install it (fonts-noto-cjk has Chinese, Japanese and Korean)",
        undrawable(missing));
  }
  const int64_t cell_height = height + kGap / 2 + static_cast<int64_t>(most) * kGlyphHeight;
  const int64_t rows = (static_cast<int64_t>(cells.size()) + columns - 1) / columns;
  const int64_t w = columns * (int64_t{width} + kGap) + kGap, h = rows * (cell_height + kGap) + kGap;
  if (w > kMaxSide || h > kMaxSide || w * h > kMaxPixels) {
    throw Error(
        ErrorCode::invalid_argument,
        fmt::format("a contact sheet of {} x {} pixels is too large: make fewer or smaller pictures", w, h));
  }
  io::Image8 sheet{static_cast<int>(w), static_cast<int>(h), {}};
  sheet.rgba.assign(static_cast<size_t>(w * h) * 4, 255);
  for (size_t i = 0; i < cells.size(); ++i) {
    const int x = kGap + static_cast<int>(i) % columns * (width + kGap);
    int y = kGap + static_cast<int>(i) / columns * static_cast<int>(cell_height + kGap);
    paste(sheet, enlarged(cells[i].picture, factor), x, y);
    y += height + kGap / 2;
    for (const std::string& line : lines[i]) {
      draw_text(sheet, x, y, line);
      y += kGlyphHeight;
    }
  }
  return sheet;
}

}  // namespace vkflux
