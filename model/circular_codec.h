// A latent codec for textures that tile.
#pragma once

#include <memory>
#include <utility>

#include "model/latent_codec.h"

namespace vkflux {

/// Hands its codec the picture or latent with a margin of what lies beyond its borders when it tiles, and
/// cuts that off again: convolutions meet at a border what they would meet inside. x: left and right fit each
/// other, y: above and below.
class CircularCodec final : public LatentCodec {
 public:
  CircularCodec(std::shared_ptr<const LatentCodec> codec, bool x, bool y)
      : codec_(std::move(codec)), x_(x), y_(y) {}
  Tensor encode(const Tensor& x) const override;
  Tensor decode(const Tensor& latent) const override;

 private:
  std::shared_ptr<const LatentCodec> codec_;
  bool x_, y_;
};

}  // namespace vkflux
