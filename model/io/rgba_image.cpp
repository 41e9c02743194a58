#include "model/io/rgba_image.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "vk/error.h"

namespace vkflux {
namespace {

size_t sample_count(int width, int height) {
  return static_cast<size_t>(width) * static_cast<size_t>(height) * 4;
}

double lanczos3(double x) {
  if (x == 0) return 1;
  if (std::abs(x) >= 3) return 0;
  const double t = std::numbers::pi * x;
  return 3 * std::sin(t) * std::sin(t / 3) / (t * t);
}

/// The input samples under one output sample and their weights, which sum to 1.
struct Tap {
  int first = 0;
  std::vector<double> weights;
};

std::vector<Tap> lanczos_taps(int in, int out) {
  const double scale = static_cast<double>(in) / out;
  const double stretch = std::max(scale, 1.0);
  std::vector<Tap> taps(static_cast<size_t>(out));
  for (int i = 0; i < out; ++i) {
    const double center = (i + 0.5) * scale;
    const int lo = std::max(0, static_cast<int>(center - 3 * stretch + 0.5));
    const int hi = std::min(in, static_cast<int>(center + 3 * stretch + 0.5));
    Tap& tap = taps[static_cast<size_t>(i)];
    tap.first = lo;
    double sum = 0;
    for (int j = lo; j < hi; ++j) {
      tap.weights.push_back(lanczos3((j + 0.5 - center) / stretch));
      sum += tap.weights.back();
    }
    for (double& w : tap.weights) w /= sum;
  }
  return taps;
}

/// Resamples along x and transposes, so that two calls resample both axes.
template <class T>
std::vector<double> resample_transposed(const std::vector<T>& in, int width, int height, int out_width) {
  const auto taps = lanczos_taps(width, out_width);
  std::vector<double> out(sample_count(out_width, height));
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < out_width; ++x) {
      const Tap& tap = taps[static_cast<size_t>(x)];
      for (size_t c = 0; c < 4; ++c) {
        double sum = 0;
        for (size_t k = 0; k < tap.weights.size(); ++k) {
          sum +=
              tap.weights[k] *
              in[(static_cast<size_t>(y) * static_cast<size_t>(width) + static_cast<size_t>(tap.first) + k) *
                     4 +
                 c];
        }
        out[(static_cast<size_t>(x) * static_cast<size_t>(height) + static_cast<size_t>(y)) * 4 + c] = sum;
      }
    }
  }
  return out;
}

struct Box {
  int x = 0, y = 0, width = 0, height = 0;
};

/// The largest box in the middle of w x h with sides as width : height.
Box middle(int w, int h, int width, int height) {
  if (w <= 0 || h <= 0 || width <= 0 || height <= 0) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("cannot cut {}x{} in the shape of {}x{}: every side must be positive", w, h,
                            width, height));
  }
  const int64_t across = int64_t{w} * height, down = int64_t{h} * width;
  Box box{0, 0, w, h};
  if (across > down) box.width = std::max(1, static_cast<int>((down + height / 2) / height));
  if (across < down) box.height = std::max(1, static_cast<int>((across + width / 2) / width));
  box.x = (w - box.width) / 2;
  box.y = (h - box.height) / 2;
  return box;
}

uint8_t quantise(float value) {
  return static_cast<uint8_t>(std::lround(std::clamp(value, 0.0f, 1.0f) * 255.0f));
}

}  // namespace

RgbaImage from_straight_rgba8(std::span<const uint8_t> rgba, int width, int height) {
  if (width <= 0 || height <= 0 || rgba.size() != sample_count(width, height)) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("RGBA pixels: expected {}x{}x4 bytes, got {}", width, height, rgba.size()));
  }
  RgbaImage image(width, height);
  for (size_t i = 0; i < rgba.size(); i += 4) {
    const float alpha = static_cast<float>(rgba[i + 3]) / 255.0f;
    for (size_t c = 0; c < 3; ++c) image.pixels[i + c] = static_cast<float>(rgba[i + c]) / 255.0f * alpha;
    image.pixels[i + 3] = alpha;
  }
  return image;
}

std::vector<uint8_t> to_straight_rgba8(const RgbaImage& image) {
  std::vector<uint8_t> out(image.pixels.size());
  for (size_t i = 0; i < out.size(); i += 4) {
    const float alpha = image.pixels[i + 3];
    out[i + 3] = quantise(alpha);
    if (out[i + 3] == 0) continue;
    for (size_t c = 0; c < 3; ++c) out[i + c] = quantise(image.pixels[i + c] / alpha);
  }
  return out;
}

RgbaImage padded_to_square(const RgbaImage& image) {
  const int side = std::max(image.width, image.height);
  RgbaImage out(side, side);
  const int x0 = (side - image.width) / 2, y0 = (side - image.height) / 2;
  for (int y = 0; y < image.height; ++y) std::copy_n(image.at(0, y), image.width * 4, out.at(x0, y0 + y));
  return out;
}

RgbaImage center_crop(const RgbaImage& image, int width, int height) {
  const Box box = middle(image.width, image.height, width, height);
  RgbaImage out(box.width, box.height);
  for (int y = 0; y < box.height; ++y) std::copy_n(image.at(box.x, box.y + y), box.width * 4, out.at(0, y));
  return out;
}

io::Image8 center_crop(const io::Image8& image, int width, int height) {
  const Box box = middle(image.width, image.height, width, height);
  if (box.width == image.width && box.height == image.height) return image;
  io::Image8 out{box.width, box.height, {}};
  out.rgba.reserve(sample_count(box.width, box.height));
  for (int y = 0; y < box.height; ++y) {
    const auto row =
        image.rgba.begin() + static_cast<ptrdiff_t>(sample_count(image.width, box.y + y)) + box.x * 4;
    out.rgba.insert(out.rgba.end(), row, row + box.width * 4);
  }
  return out;
}

RgbaImage resize_lanczos(const RgbaImage& image, int width, int height) {
  if (image.width <= 0 || image.height <= 0 || width <= 0 || height <= 0) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("cannot resize {}x{} to {}x{}: every side must be positive", image.width,
                            image.height, width, height));
  }
  std::vector<double> work = resample_transposed(image.pixels, image.width, image.height, width);
  work = resample_transposed(work, image.height, width, height);
  RgbaImage out(width, height);
  for (size_t i = 0; i < out.pixels.size(); i += 4) {
    const double alpha = std::clamp(work[i + 3], 0.0, 1.0);
    for (size_t c = 0; c < 3; ++c)
      out.pixels[i + c] = static_cast<float>(std::clamp(work[i + c], 0.0, alpha));
    out.pixels[i + 3] = static_cast<float>(alpha);
  }
  return out;
}

void composite_planar(const RgbaImage& image, const Rgb& background, std::span<float> out) {
  const size_t plane = image.pixels.size() / 4;
  if (out.size() != plane * 3) {
    throw Error(ErrorCode::invalid_argument, fmt::format("composite of {}x{} needs {} floats, got {}",
                                                         image.width, image.height, plane * 3, out.size()));
  }
  for (size_t c = 0; c < 3; ++c) {
    for (size_t i = 0; i < plane; ++i) {
      const float* p = &image.pixels[i * 4];
      out[c * plane + i] = 2.0f * (p[c] + (1.0f - p[3]) * background[c]) - 1.0f;
    }
  }
}

RgbaImage fitted(const io::Image8& image, int width, int height) {
  const io::Image8 middle = center_crop(image, width, height);
  const RgbaImage out = from_straight_rgba8(middle.rgba, middle.width, middle.height);
  return out.width == width && out.height == height ? out : resize_lanczos(out, width, height);
}

}  // namespace vkflux
