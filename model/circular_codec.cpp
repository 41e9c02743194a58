#include "model/circular_codec.h"

#include <algorithm>
#include <vector>

#include "autograd/ops.h"

namespace vkflux {
namespace {

// Cells of the latent: about as far as the convolutions of the published autoencoders reach.
constexpr int64_t kMargin = 16;
constexpr int64_t kPixelMargin = 128;  // of pictures: whole cells of any codec

/// x with `margin` of its other end at both ends of a dimension, more than once around where x is shorter.
Tensor around(Tensor x, int dim, int64_t margin) {
  if (margin == 0) return x;
  const int64_t length = x.dim(dim);
  std::vector<Tensor> parts;
  for (int64_t i = -margin; i < length + margin;) {
    const int64_t from = ((i % length) + length) % length, n = std::min(length - from, length + margin - i);
    parts.push_back(op::narrow(x, dim, from, n));
    i += n;
  }
  return op::concat(parts, dim);
}

}  // namespace

Tensor CircularCodec::decode(const Tensor& latent) const {
  const int64_t mx = x_ ? kMargin : 0, my = y_ ? kMargin : 0;
  const Tensor wide = codec_->decode(around(around(latent, 3, mx), 2, my));
  const int64_t cell = wide.dim(3) / (latent.dim(3) + 2 * mx);
  return op::contiguous(
      op::narrow(op::narrow(wide, 3, mx * cell, latent.dim(3) * cell), 2, my * cell, latent.dim(2) * cell));
}

Tensor CircularCodec::encode(const Tensor& x) const {
  const int64_t mx = x_ ? kPixelMargin : 0, my = y_ ? kPixelMargin : 0;
  const Tensor wide = codec_->encode(around(around(x, 3, mx), 2, my));
  const int64_t cell = (x.dim(3) + 2 * mx) / wide.dim(3);
  return op::contiguous(
      op::narrow(op::narrow(wide, 3, mx / cell, x.dim(3) / cell), 2, my / cell, x.dim(2) / cell));
}

}  // namespace vkflux
