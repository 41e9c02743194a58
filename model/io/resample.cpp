#include "model/io/resample.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "vk/error.h"

namespace vkflux::io {
namespace {

constexpr int kFraction = 22;  // bits of a weight behind the point: 8 of the sample and a sign come on top

double sinc(double x) {
  if (x == 0) return 1;
  x *= std::numbers::pi;
  return std::sin(x) / x;
}

double weight(Filter filter, double x) {
  switch (filter) {
    case Filter::bilinear:
      x = std::abs(x);
      return x < 1 ? 1 - x : 0;
    case Filter::bicubic: {
      constexpr double a = -0.5;
      x = std::abs(x);
      if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
      return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
    }
    case Filter::lanczos:
      return x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0;
    case Filter::nearest:
      break;
  }
  return 0;
}

double reach(Filter filter) {
  return filter == Filter::bilinear ? 1 : filter == Filter::bicubic ? 2 : 3;
}

/// The samples under one result and their weights, which sum to about 2^kFraction.
struct Tap {
  int first = 0;
  std::vector<int> weights;
};

std::vector<Tap> taps_of(int in, int out, Filter filter) {
  const double scale = static_cast<double>(in) / out, stretch = std::max(scale, 1.0);
  const double support = reach(filter) * stretch, inverse = 1 / stretch;
  std::vector<Tap> taps(static_cast<size_t>(out));
  std::vector<double> exact;
  for (int i = 0; i < out; ++i) {
    const double centre = (i + 0.5) * scale;
    const int first = std::max(0, static_cast<int>(centre - support + 0.5));
    const int last = std::min(in, static_cast<int>(centre + support + 0.5));
    exact.clear();
    double sum = 0;
    for (int j = first; j < last; ++j) {
      exact.push_back(weight(filter, (j - centre + 0.5) * inverse));
      sum += exact.back();
    }
    Tap& tap = taps[static_cast<size_t>(i)];
    tap.first = first;
    for (double w : exact) {
      if (sum != 0) w /= sum;
      tap.weights.push_back(static_cast<int>((w < 0 ? -0.5 : 0.5) + w * (1 << kFraction)));
    }
  }
  return taps;
}

uint8_t rounded(int64_t sum) {
  return static_cast<uint8_t>(std::clamp<int64_t>((sum + (1 << (kFraction - 1))) >> kFraction, 0, 255));
}

size_t at(const Samples8& s, int x, int y) {
  return (static_cast<size_t>(y) * static_cast<size_t>(s.width) + static_cast<size_t>(x)) *
         static_cast<size_t>(s.channels);
}

Samples8 blank(int width, int height, int channels) {
  return {width, height, channels,
          std::vector<uint8_t>(static_cast<size_t>(width) * static_cast<size_t>(height) *
                               static_cast<size_t>(channels))};
}

/// Along the rows, or along the columns.
Samples8 pass(const Samples8& in, int length, bool rows, Filter filter) {
  const std::vector<Tap> taps = taps_of(rows ? in.width : in.height, length, filter);
  Samples8 out = blank(rows ? length : in.width, rows ? in.height : length, in.channels);
  const size_t stride = rows ? static_cast<size_t>(in.channels)
                             : static_cast<size_t>(in.width) * static_cast<size_t>(in.channels);
  for (int y = 0; y < out.height; ++y) {
    for (int x = 0; x < out.width; ++x) {
      const Tap& tap = taps[static_cast<size_t>(rows ? x : y)];
      const uint8_t* from = in.data.data() + (rows ? at(in, tap.first, y) : at(in, x, tap.first));
      uint8_t* to = out.data.data() + at(out, x, y);
      for (int c = 0; c < in.channels; ++c) {
        int64_t sum = 0;
        for (size_t k = 0; k < tap.weights.size(); ++k)
          sum += int64_t{from[k * stride + static_cast<size_t>(c)]} * tap.weights[k];
        to[c] = rounded(sum);
      }
    }
  }
  return out;
}

/// The place of each result, by adding up steps as Pillow does.
std::vector<int> picked(int in, int out) {
  const double step = static_cast<double>(in) / out;
  std::vector<int> places;
  double place = step * 0.5;
  for (int i = 0; i < out; ++i, place += step) places.push_back(std::min(static_cast<int>(place), in - 1));
  return places;
}

Samples8 nearest(const Samples8& in, int width, int height) {
  const std::vector<int> columns = picked(in.width, width), rows = picked(in.height, height);
  Samples8 out = blank(width, height, in.channels);
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      const size_t from = at(in, columns[static_cast<size_t>(x)], rows[static_cast<size_t>(y)]);
      std::copy_n(&in.data[from], in.channels, &out.data[at(out, x, y)]);
    }
  }
  return out;
}

int product(int a, int b) {
  const int t = a * b + 128;
  return ((t >> 8) + t) >> 8;
}

}  // namespace

Samples8 resampled(const Samples8& in, int width, int height, Filter filter) {
  if (in.width < 1 || in.height < 1 || in.channels < 1 || width < 1 || height < 1 ||
      in.data.size() != at(in, 0, in.height)) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("cannot resample {}x{} of {} channels in {} bytes to {}x{}", in.width, in.height,
                            in.channels, in.data.size(), width, height));
  }
  if (in.width == width && in.height == height) return in;
  if (filter == Filter::nearest) return nearest(in, width, height);
  Samples8 out = width == in.width ? in : pass(in, width, true, filter);
  return height == in.height ? out : pass(out, height, false, filter);
}

Image8 resampled(const Image8& in, int width, int height, Filter filter) {
  if (in.width == width && in.height == height) return in;
  Samples8 work{in.width, in.height, 4, in.rgba};
  if (filter != Filter::nearest) {
    for (size_t i = 0; i + 3 < work.data.size(); i += 4) {
      for (size_t c = 0; c < 3; ++c)
        work.data[i + c] = static_cast<uint8_t>(product(work.data[i + c], work.data[i + 3]));
    }
  }
  work = resampled(work, width, height, filter);
  if (filter != Filter::nearest) {
    for (size_t i = 0; i < work.data.size(); i += 4) {
      const int alpha = work.data[i + 3];
      if (alpha == 0 || alpha == 255) continue;
      for (size_t c = 0; c < 3; ++c)
        work.data[i + c] = static_cast<uint8_t>(std::min(255, 255 * work.data[i + c] / alpha));
    }
  }
  return {width, height, std::move(work.data)};
}

Samples8 to_grey(const Image8& image) {
  Samples8 out = blank(image.width, image.height, 1);
  for (size_t i = 0; i < out.data.size(); ++i) {
    const uint8_t* p = &image.rgba[4 * i];
    out.data[i] = static_cast<uint8_t>((p[0] * 19595 + p[1] * 38470 + p[2] * 7471 + 0x8000) >> 16);
  }
  return out;
}

namespace {

struct Cover {
  int width, height;  // scaled, before the middle is taken
  int x, y;           // where the middle begins
};

Cover cover_of(int in_width, int in_height, int width, int height) {
  if (in_width < 1 || in_height < 1 || width < 1 || height < 1) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("cannot cover {}x{} with {}x{}", width, height, in_width, in_height));
  }
  Cover c{width, height, 0, 0};
  if (int64_t{width} * in_height > int64_t{height} * in_width) {
    c.height = static_cast<int>(int64_t{in_height} * width / in_width);
  } else {
    c.width = static_cast<int>(int64_t{in_width} * height / in_height);
  }
  c.width = std::max(c.width, width);
  c.height = std::max(c.height, height);
  c.x = c.width / 2 - width / 2;
  c.y = c.height / 2 - height / 2;
  return c;
}

Samples8 cut(const Samples8& in, const Cover& c, int width, int height) {
  Samples8 out = blank(width, height, in.channels);
  for (int y = 0; y < height; ++y)
    std::copy_n(&in.data[at(in, c.x, c.y + y)], width * in.channels, &out.data[at(out, 0, y)]);
  return out;
}

}  // namespace

Samples8 covering(const Samples8& in, int width, int height, Filter filter) {
  const Cover c = cover_of(in.width, in.height, width, height);
  return cut(resampled(in, c.width, c.height, filter), c, width, height);
}

Samples8 mask_samples(const Picture& mask, int width, int height, bool cover) {
  const Filter filter = mask.facts.indexed ? Filter::nearest : Filter::lanczos;
  if (!cover) return to_grey(resampled(mask.image, width, height, filter));
  const Cover c = cover_of(mask.image.width, mask.image.height, width, height);
  return cut(to_grey(resampled(mask.image, c.width, c.height, filter)), c, width, height);
}

}  // namespace vkflux::io
