// An AutoencoderKL as a latent codec: posterior means, normalised as transformers see them.
#pragma once

#include <memory>
#include <utility>

#include "model/latent_codec.h"
#include "model/vae/autoencoder.h"

namespace vkflux {

class AutoencoderCodec final : public LatentCodec {
 public:
  explicit AutoencoderCodec(std::shared_ptr<const AutoencoderKL> model) : model_(std::move(model)) {
    model_->check_statistics();
  }
  Tensor encode(const Tensor& x) const override { return model_->to_latent(model_->encode(x).mean); }
  Tensor decode(const Tensor& latent) const override { return model_->decode(model_->from_latent(latent)); }
  std::string not_finite_in_decode(const Tensor& latent) const override {
    return first_not_finite([&](Trace* trace) {
      const Tensor z = model_->from_latent(latent);
      observe(trace, "the scaled latents", z);
      return model_->decode(z, trace);
    });
  }

 private:
  std::shared_ptr<const AutoencoderKL> model_;
};

}  // namespace vkflux
