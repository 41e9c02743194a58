#include "train/picture_grid.h"

#include <algorithm>
#include <cmath>

namespace vkflux {
namespace {

constexpr int kGap = 2;

io::Image8 picture(const std::vector<float>& x, const Shape& shape, int64_t index) {
  const auto plane = static_cast<size_t>(shape[2] * shape[3]);
  io::Image8 out{static_cast<int>(shape[3]), static_cast<int>(shape[2]),
                 std::vector<uint8_t>(plane * 4, 255)};
  const float* p = x.data() + static_cast<size_t>(index) * 3 * plane;
  for (size_t i = 0; i < plane; ++i) {
    for (size_t c = 0; c < 3; ++c) {
      out.rgba[4 * i + c] =
          static_cast<uint8_t>(std::lround((std::clamp(p[c * plane + i], -1.0f, 1.0f) + 1) * 127.5f));
    }
  }
  return out;
}

}  // namespace

io::Image8 to_picture(const Tensor& x, int64_t index) {
  return picture(x.to_host(), x.shape(), index);
}

io::Image8 picture_grid(const std::vector<Tensor>& batches, int columns) {
  std::vector<std::vector<float>> host;
  for (const Tensor& b : batches) host.push_back(b.to_host());
  std::vector<io::Image8> order;
  const int64_t n = batches.front().dim(0);
  for (int64_t row = 0; row < n; row += columns) {
    for (size_t b = 0; b < batches.size(); ++b) {
      for (int64_t i = row; i < row + columns; ++i) {
        order.push_back(i < n ? picture(host[b], batches[b].shape(), i) : io::Image8{});
      }
    }
  }
  return picture_grid(order, columns);
}

io::Image8 picture_grid(const std::vector<io::Image8>& pictures, int columns) {
  int w = 0, h = 0;
  for (const auto& p : pictures) {
    w = std::max(w, p.width);
    h = std::max(h, p.height);
  }
  const int rows = (static_cast<int>(pictures.size()) + columns - 1) / columns;
  io::Image8 out{columns * (w + kGap) + kGap, rows * (h + kGap) + kGap, {}};
  const auto stride = static_cast<size_t>(out.width) * 4;
  out.rgba.assign(stride * static_cast<size_t>(out.height), 255);
  for (size_t i = 0; i < pictures.size(); ++i) {
    const io::Image8& p = pictures[i];
    const int x0 = kGap + static_cast<int>(i) % columns * (w + kGap),
              y0 = kGap + static_cast<int>(i) / columns * (h + kGap);
    for (int y = 0; y < p.height; ++y) {
      std::copy_n(&p.rgba[static_cast<size_t>(y * p.width) * 4], static_cast<size_t>(p.width) * 4,
                  &out.rgba[static_cast<size_t>(y0 + y) * stride + static_cast<size_t>(x0) * 4]);
    }
  }
  return out;
}

}  // namespace vkflux
