// Trains a transformer and its text encoders together by flow matching on cached latents:
// x_t = (1 - t) x0 + t n, target n - x0, t = sigmoid(N(mu, sigma)), mean squared error.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "model/family.h"
#include "train/data/dataset.h"
#include "train/trainer.h"

namespace vkflux {

/// Normalised, packed latents (posterior means) of pictures and of their tinted variants, kept on the device.
class LatentCache {
 public:
  /// colours: also every (tintable item, colour) that isn't held out.
  LatentCache(Device& device, const LatentCodec& codec, const LatentGeometry& geometry, const Dataset& data,
              const std::vector<size_t>& items, int size, bool colors);
  /// Row of an item (its number in the data set) in a colour (-1: as it is).
  int32_t row(size_t item, int color) const;
  const Tensor& rows() const { return rows_; }  // [R, tokens * channels]
  int64_t tokens() const { return tokens_; }
  int64_t channels() const { return channels_; }

 private:
  Tensor rows_;
  int64_t tokens_ = 0, channels_ = 0;
  std::map<std::pair<size_t, int>, int32_t> index_;
};

struct FlowTrainOptions {
  TrainOptions train;
  int size = 64;
  std::string split = "s493";
  CaptionMix captions;
  float time_mu = 0.4f, time_sigma = 1.0f;
  bool loaded = false;  // the model has weights to go on from
};

class FlowTrainer : public Trainer {
 public:
  /// Every part of the model is trained, from options.train.seed unless it is loaded; the codec only makes
  /// the latents.
  FlowTrainer(Device& device, TrainableModel& model, const LatentCodec& codec, const Dataset& data,
              const FlowTrainOptions& options);

 protected:
  Tensor loss(int64_t step, int64_t micro, std::map<std::string, Tensor>& report) override;

 private:
  TrainableModel& model_;
  FlowTrainOptions flow_;
  const Dataset& data_;
  std::vector<size_t> items_;
  LatentCache latents_;
};

/// Packed latents [B, tokens, channels], one picture for each row of the condition; picture b depends on
/// (seed + b) alone. `empty`: the other side of true guidance.
Tensor sample_latents(Backbone& backbone, const ModelInfo& model, const Condition& positive,
                      const Condition& empty, const SamplingRequest& request, uint64_t seed);

struct RecallReport {
  int64_t right = 0, tried = 0;
  double latent_mse = 0;           // to the true picture's latent (unit variance)
  std::vector<std::string> wrong;  // "asked -> nearest"
};
/// Nearest-latent recall: the share of `names` (items) whose latent, sampled from the item's name, is nearest
/// (L2) to the item's own among those of all `candidates`. `sample` gives the packed latents of prompts, the
/// seed of the first given.
RecallReport nearest_latent_recall(
    const std::function<Tensor(const std::vector<std::string>&, uint64_t)>& sample, const LatentCache& cache,
    const Dataset& data, const std::vector<size_t>& names, const std::vector<size_t>& candidates,
    uint64_t seed);

}  // namespace vkflux
