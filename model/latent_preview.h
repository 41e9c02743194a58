// Quick pictures of latents while they are drawn.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "model/latent_codec.h"
#include "model/rgb_image.h"

namespace vkflux {

/// The linear map from a cell of a latent to the mean colour of its pixels that fits a codec best: least
/// squares over a few made-up pictures that the codec encodes.
class LinearPreview {
 public:
  /// cell: pixels along a side of a latent's cell. Error verification_failed where the codec gives nothing to
  /// fit, not finite numbers say.
  static LinearPreview fit(Device& device, const LatentCodec& codec, int64_t channels, int64_t cell);

  /// latents[B, channels, h, w] -> B pictures of w x h cells, each `cell` pixels wide and high.
  std::vector<RgbImage> draw(const Tensor& latents) const;
  /// Root of the mean squared error of the fit, of colours from -1 to 1.
  double error() const { return error_; }

 private:
  int64_t channels_ = 0, cell_ = 1;
  std::vector<double> map_;  // [channels + 1, 3]: the last row is what a latent of zeros shows
  double error_ = 0;
};

}  // namespace vkflux
