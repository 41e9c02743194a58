// Trains an AutoencoderKL on pictures: L1 + 0.5 L1 of finite differences + a small KL term (and, if asked, a
// squared error), with augmentation. The decoder alone can be trained further, which leaves the latents as
// they are.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/vae/autoencoder.h"
#include "train/data/dataset.h"
#include "train/trainer.h"

namespace vkflux {

struct AutoencoderTrainOptions {
  TrainOptions train;
  int size = 64;
  std::string split = "autoencoder";
  float gradient_weight = 0.5f, kl_weight = 5e-4f, mse_weight = 0;
  float noise = 1;            // of the posterior sample, in its standard deviations
  bool loaded = false;        // the model has weights to go on from
  bool decoder_only = false;  // and its encoder stays as it is
  float shift = 0.5f, mirror = 0.5f, permute = 0.25f,
        background = 0.25f;  // probabilities of each augmentation
  int max_shift = 4;         // pixels
};

class AutoencoderTrainer : public Trainer {
 public:
  /// The model is trained in place; it is initialised from options.train.seed unless it is loaded.
  AutoencoderTrainer(Device& device, AutoencoderKL& model, const Dataset& data,
                     const AutoencoderTrainOptions& options);

 protected:
  Tensor loss(int64_t step, int64_t micro, std::map<std::string, Tensor>& report) override;

 private:
  Tensor batch(int64_t step, int64_t micro) const;  // [B, 3, size, size] in [-1, 1]

  AutoencoderKL& model_;
  AutoencoderTrainOptions ae_;
  std::vector<RgbaImage> images_;
};

/// Pictures of a split as the model sees them, on white: [B, 3, size, size].
Tensor pictures(Device& device, const Dataset& data, const std::vector<size_t>& indices, int size);

/// Makes the model's latents standard over a split: sets its factors from mean and scale of the posterior
/// means, or the statistics of each folded channel where it has them. Error invalid_argument for means that
/// are all the same or not finite.
void measure_latents(Device& device, AutoencoderKL& model, const Dataset& data,
                     const std::vector<size_t>& indices, int size);

/// Peak signal-to-noise ratio in dB of the reconstruction of each picture (range [-1, 1], so peak 2), clamped
/// first.
std::vector<double> reconstruction_psnr(Device& device, const AutoencoderKL& model, const Dataset& data,
                                        const std::vector<size_t>& indices, int size);

}  // namespace vkflux
