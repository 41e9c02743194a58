// How near two pictures, or two latents, are to each other.
#pragma once

#include <cstdint>
#include <span>

#include "model/pipeline.h"

namespace vkflux {

struct PictureMetrics {
  double psnr = 0;    // dB, of 8-bit values; infinite for equal pictures
  double ssim = 0;    // mean over channels and places
  double cosine = 0;  // of all values as one vector
  double rmse = 0;    // in units of the full scale, 0 to 1
};

/// Both pictures must have one size (error invalid_argument). SSIM is that of Wang et al. (2004): Gaussian
/// window of 11 x 11 with sigma 1.5, K1 = 0.01, K2 = 0.03, only where the window fits; pictures smaller than
/// that take the largest odd window that fits.
PictureMetrics compare_pictures(const RgbImage& a, const RgbImage& b);

struct VectorMetrics {
  double cosine = 0, rmse = 0;
};
/// Norms are floored at 1e-12. Error invalid_argument for different lengths.
VectorMetrics compare_vectors(std::span<const float> a, std::span<const float> b);

/// min(255, gain * |a - b|) per channel.
RgbImage difference_picture(const RgbImage& a, const RgbImage& b, int gain);

}  // namespace vkflux
