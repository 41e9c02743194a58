#include "app/picture_metrics.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <vector>

#include "vk/error.h"

namespace vkflux {
namespace {

constexpr int64_t kWindow = 11;
constexpr double kSigma = 1.5, kFull = 255, kC1 = 0.01 * kFull * 0.01 * kFull,
                 kC2 = 0.03 * kFull * 0.03 * kFull;

struct Plane {
  int64_t width = 0, height = 0;
  std::vector<double> v;
};

std::vector<double> gaussian(int64_t n) {
  std::vector<double> w(static_cast<size_t>(n));
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) {
    const double d = static_cast<double>(i) - static_cast<double>(n - 1) / 2;
    sum += w[static_cast<size_t>(i)] = std::exp(-d * d / (2 * kSigma * kSigma));
  }
  for (double& x : w) x /= sum;
  return w;
}

/// The window's weighted mean at every place where it fits.
Plane filter(const Plane& p, const std::vector<double>& w) {
  const auto n = static_cast<int64_t>(w.size());
  Plane rows{p.width - n + 1, p.height, {}};
  rows.v.reserve(static_cast<size_t>(rows.width * rows.height));
  for (int64_t y = 0; y < rows.height; ++y) {
    for (int64_t x = 0; x < rows.width; ++x) {
      double s = 0;
      for (int64_t k = 0; k < n; ++k)
        s += w[static_cast<size_t>(k)] * p.v[static_cast<size_t>(y * p.width + x + k)];
      rows.v.push_back(s);
    }
  }
  Plane out{rows.width, p.height - n + 1, {}};
  out.v.reserve(static_cast<size_t>(out.width * out.height));
  for (int64_t y = 0; y < out.height; ++y) {
    for (int64_t x = 0; x < out.width; ++x) {
      double s = 0;
      for (int64_t k = 0; k < n; ++k)
        s += w[static_cast<size_t>(k)] * rows.v[static_cast<size_t>((y + k) * rows.width + x)];
      out.v.push_back(s);
    }
  }
  return out;
}

Plane channel(const RgbImage& image, size_t c) {
  Plane p{image.width, image.height, {}};
  for (size_t i = c; i < image.rgb.size(); i += 3) p.v.push_back(image.rgb[i]);
  return p;
}

Plane product(const Plane& a, const Plane& b) {
  Plane p = a;
  for (size_t i = 0; i < p.v.size(); ++i) p.v[i] *= b.v[i];
  return p;
}

double plane_ssim(const Plane& a, const Plane& b, const std::vector<double>& w) {
  const Plane ma = filter(a, w), mb = filter(b, w), aa = filter(product(a, a), w),
              bb = filter(product(b, b), w), ab = filter(product(a, b), w);
  double sum = 0;
  for (size_t i = 0; i < ma.v.size(); ++i) {
    const double x = ma.v[i], y = mb.v[i];
    const double va = aa.v[i] - x * x, vb = bb.v[i] - y * y, cov = ab.v[i] - x * y;
    sum += (2 * x * y + kC1) * (2 * cov + kC2) / ((x * x + y * y + kC1) * (va + vb + kC2));
  }
  return sum / static_cast<double>(ma.v.size());
}

void check_sizes(const RgbImage& a, const RgbImage& b) {
  const auto bytes = static_cast<size_t>(a.width * a.height * 3);
  if (a.width == b.width && a.height == b.height && a.width > 0 && a.height > 0 && a.rgb.size() == bytes &&
      b.rgb.size() == bytes) {
    return;
  }
  throw Error(ErrorCode::invalid_argument, fmt::format("pictures of {} x {} and {} x {} can't be compared",
                                                       a.width, a.height, b.width, b.height));
}

}  // namespace

PictureMetrics compare_pictures(const RgbImage& a, const RgbImage& b) {
  check_sizes(a, b);
  PictureMetrics m;
  double square = 0, dot = 0, na = 0, nb = 0;
  for (size_t i = 0; i < a.rgb.size(); ++i) {
    const double x = a.rgb[i], y = b.rgb[i];
    square += (x - y) * (x - y);
    dot += x * y;
    na += x * x;
    nb += y * y;
  }
  const double mse = square / static_cast<double>(a.rgb.size());
  m.rmse = std::sqrt(mse) / kFull;
  m.psnr = mse > 0 ? 10 * std::log10(kFull * kFull / mse) : std::numeric_limits<double>::infinity();
  // Two black pictures point the same way.
  m.cosine = na == 0 && nb == 0 ? 1 : dot / std::max(std::sqrt(na) * std::sqrt(nb), 1e-12);
  const int64_t side = std::min({kWindow, a.width, a.height});
  const std::vector<double> w = gaussian(side % 2 ? side : side - 1);
  for (size_t c = 0; c < 3; ++c) m.ssim += plane_ssim(channel(a, c), channel(b, c), w) / 3;
  return m;
}

VectorMetrics compare_vectors(std::span<const float> a, std::span<const float> b) {
  if (a.size() != b.size() || a.empty()) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("vectors of {} and {} values can't be compared", a.size(), b.size()));
  }
  double square = 0, dot = 0, na = 0, nb = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double x = a[i], y = b[i];
    square += (x - y) * (x - y);
    dot += x * y;
    na += x * x;
    nb += y * y;
  }
  return {dot / (std::max(std::sqrt(na), 1e-12) * std::max(std::sqrt(nb), 1e-12)),
          std::sqrt(square / static_cast<double>(a.size()))};
}

RgbImage difference_picture(const RgbImage& a, const RgbImage& b, int gain) {
  check_sizes(a, b);
  RgbImage out = a;
  for (size_t i = 0; i < out.rgb.size(); ++i) {
    out.rgb[i] = static_cast<uint8_t>(std::min(255, gain * std::abs(int{a.rgb[i]} - int{b.rgb[i]})));
  }
  return out;
}

}  // namespace vkflux
