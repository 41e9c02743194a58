// Pictures to latents and back, as everybody but the codec itself sees it.
#pragma once

#include <string>

#include "autograd/tensor.h"

namespace vkflux {

class LatentCodec {
 public:
  virtual ~LatentCodec() = default;
  /// x[B, 3, H, W] in [-1, 1] -> latents [B, channels, h, w] as the transformer sees them, without noise.
  virtual Tensor encode(const Tensor& x) const = 0;
  /// The inverse: [B, channels, h, w] -> [B, 3, H, W], not clamped.
  virtual Tensor decode(const Tensor& latent) const = 0;
  /// Decodes again and names the first value on the way that isn't finite; empty: all are, or nobody knows.
  virtual std::string not_finite_in_decode(const Tensor&) const { return {}; }
};

}  // namespace vkflux
