#include "model/latent_preview.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <random>

#include "vk/error.h"

namespace vkflux {
namespace {

constexpr int64_t kPictures = 4, kCells = 16;  // of what is fitted to: a side in cells

/// Planes [3, side, side] of smooth waves with patches of one colour: like pictures, colours vary slowly.
std::vector<float> made_up_picture(std::mt19937& random, int64_t side) {
  const auto uniform = [&](double from, double to) {
    return from + (to - from) * static_cast<double>(random()) / 4294967296.0;
  };
  std::vector<float> out;
  for (int c = 0; c < 3; ++c) {
    const double fx = uniform(-9, 9), fy = uniform(-9, 9), phase = uniform(0, 6.3),
                 middle = uniform(-0.5, 0.5);
    for (int64_t y = 0; y < side; ++y) {
      for (int64_t x = 0; x < side; ++x) {
        const double at =
            (fx * static_cast<double>(x) + fy * static_cast<double>(y)) / static_cast<double>(side);
        out.push_back(static_cast<float>(std::clamp(middle + 0.7 * std::sin(at + phase), -1.0, 1.0)));
      }
    }
  }
  for (int patch = 0; patch < 6; ++patch) {
    const auto edge = [&] { return static_cast<int64_t>(uniform(0, static_cast<double>(side))); };
    const int64_t x0 = edge(), y0 = edge(), n = side / 4;
    const std::array<double, 3> colour{uniform(-1, 1), uniform(-1, 1), uniform(-1, 1)};
    for (size_t c = 0; c < 3; ++c) {
      for (int64_t y = y0; y < std::min(side, y0 + n); ++y) {
        for (int64_t x = x0; x < std::min(side, x0 + n); ++x)
          out[c * static_cast<size_t>(side * side) + static_cast<size_t>(y * side + x)] =
              static_cast<float>(colour[c]);
      }
    }
  }
  return out;
}

/// Solves a[n, n] x = b[n, 3] for a positive definite a, in place of b.
bool solve(std::vector<double>& a, std::vector<double>& b, size_t n) {
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = 0; j <= i; ++j) {
      double sum = a[i * n + j];
      for (size_t k = 0; k < j; ++k) sum -= a[i * n + k] * a[j * n + k];
      if (i != j) {
        a[i * n + j] = sum / a[j * n + j];
      } else if (sum > 0) {
        a[i * n + i] = std::sqrt(sum);
      } else {
        return false;
      }
    }
  }
  for (size_t c = 0; c < 3; ++c) {
    for (size_t i = 0; i < n; ++i) {
      for (size_t k = 0; k < i; ++k) b[i * 3 + c] -= a[i * n + k] * b[k * 3 + c];
      b[i * 3 + c] /= a[i * n + i];
    }
    for (size_t i = n; i-- > 0;) {
      for (size_t k = i + 1; k < n; ++k) b[i * 3 + c] -= a[k * n + i] * b[k * 3 + c];
      b[i * 3 + c] /= a[i * n + i];
    }
  }
  return true;
}

}  // namespace

LinearPreview LinearPreview::fit(Device& device, const LatentCodec& codec, int64_t channels, int64_t cell) {
  const int64_t side = kCells * cell;
  const size_t n = static_cast<size_t>(channels) + 1, cells = static_cast<size_t>(kCells * kCells);
  std::vector<double> products(n * n), targets(n * 3), row(n);
  double squares = 0;
  std::mt19937 random(1);
  for (int64_t p = 0; p < kPictures; ++p) {
    const std::vector<float> picture = made_up_picture(random, side);
    const std::vector<float> latent =
        codec.encode(Tensor::from(device, std::span<const float>(picture), {1, 3, side, side})).to_host();
    for (size_t i = 0; i < cells; ++i) {
      for (size_t c = 0; c + 1 < n; ++c) row[c] = latent.at(c * cells + i);
      row[n - 1] = 1;
      const auto y0 = static_cast<int64_t>(i) / kCells * cell, x0 = static_cast<int64_t>(i) % kCells * cell;
      for (size_t c = 0; c < 3; ++c) {
        double mean = 0;
        for (int64_t y = y0; y < y0 + cell; ++y) {
          for (int64_t x = x0; x < x0 + cell; ++x)
            mean += picture[c * static_cast<size_t>(side * side) + static_cast<size_t>(y * side + x)];
        }
        mean /= static_cast<double>(cell * cell);
        squares += mean * mean;
        for (size_t k = 0; k < n; ++k) targets[k * 3 + c] += row[k] * mean;
      }
      for (size_t j = 0; j < n; ++j) {
        for (size_t k = 0; k < n; ++k) products[j * n + k] += row[j] * row[k];
      }
    }
  }
  // A little weight on small numbers, so that channels which say the same can be told apart.
  double trace = 0;
  for (size_t k = 0; k < n; ++k) trace += products[k * n + k];
  for (size_t k = 0; k < n; ++k) products[k * n + k] += 1e-6 * trace / static_cast<double>(n);
  LinearPreview out;
  out.channels_ = channels;
  out.cell_ = cell;
  out.map_ = targets;
  if (!std::isfinite(trace) || !solve(products, out.map_, n)) {
    throw Error(ErrorCode::verification_failed,
                "the autoencoder's latents of made-up pictures aren't finite: its weights are damaged");
  }
  double explained = 0;
  for (size_t k = 0; k < targets.size(); ++k) explained += out.map_[k] * targets[k];
  const double samples = static_cast<double>(kPictures) * static_cast<double>(cells) * 3;
  out.error_ = std::sqrt(std::max(0.0, squares - explained) / samples);
  return out;
}

std::vector<RgbImage> LinearPreview::draw(const Tensor& latents) const {
  const std::vector<float> host = latents.to_host();
  const int64_t rows = latents.dim(2), columns = latents.dim(3), width = columns * cell_;
  const auto plane = static_cast<size_t>(rows * columns), channels = static_cast<size_t>(channels_);
  std::vector<RgbImage> out;
  for (size_t b = 0; b < static_cast<size_t>(latents.dim(0)); ++b) {
    RgbImage image{width, rows * cell_, std::vector<uint8_t>(static_cast<size_t>(3 * width * rows * cell_))};
    for (size_t i = 0; i < plane; ++i) {
      std::array<uint8_t, 3> colour{};
      for (size_t c = 0; c < 3; ++c) {
        double v = map_[channels * 3 + c];
        for (size_t k = 0; k < channels; ++k) v += map_[k * 3 + c] * host[(b * channels + k) * plane + i];
        const double level = std::isfinite(v) ? (std::clamp(v, -1.0, 1.0) + 1) * 127.5 : 0;
        colour[c] = static_cast<uint8_t>(std::lround(level));
      }
      const auto y0 = static_cast<int64_t>(i) / columns * cell_,
                 x0 = static_cast<int64_t>(i) % columns * cell_;
      for (int64_t y = y0; y < y0 + cell_; ++y) {
        for (int64_t x = x0; x < x0 + cell_; ++x)
          std::copy(colour.begin(), colour.end(), image.rgb.begin() + 3 * (y * width + x));
      }
    }
    out.push_back(std::move(image));
  }
  return out;
}

}  // namespace vkflux
