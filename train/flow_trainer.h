// Trains a FLUX.1 transformer and its text encoders together by flow matching on cached latents:
// x_t = (1 - t) x0 + t n, target n - x0, t = sigmoid(N(mu, sigma)), mean squared error.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "model/flux/transformer.h"
#include "model/sampler/denoise.h"
#include "model/sampler/schedule.h"
#include "model/text/clip.h"
#include "model/text/t5.h"
#include "model/text/tokenizer.h"
#include "model/vae/autoencoder.h"
#include "train/data/dataset.h"
#include "train/trainer.h"

namespace vkflux {

/// Everything between a prompt and a velocity.
struct FlowModel {
  Flux1 transformer;
  ClipText clip;
  T5Encoder t5;
  std::shared_ptr<const Tokenizer> clip_tokenizer, t5_tokenizer;
  int clip_tokens = 8, t5_tokens = 8;
};

/// Tokens of captions for both encoders; captions repeat, so each is tokenised once.
class CaptionIds {
 public:
  explicit CaptionIds(const FlowModel& model) : model_(model) {}
  struct Batch {
    TokenIds clip, t5;
  };
  Batch operator()(const std::vector<std::string>& captions);

 private:
  const FlowModel& model_;
  std::map<std::string, std::pair<std::vector<int32_t>, std::vector<int32_t>>> known_;
};

/// Normalised, packed latents (posterior means) of pictures and of their tinted variants, kept on the device.
class LatentCache {
 public:
  /// colours: also every (tintable item, colour) that isn't held out.
  LatentCache(Device& device, const AutoencoderKL& vae, const Dataset& data, const std::vector<size_t>& items,
              int size, bool colors);
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
  /// Every part of the model is trained, from options.train.seed unless it is loaded; the autoencoder only
  /// makes the latents.
  FlowTrainer(Device& device, FlowModel& model, const AutoencoderKL& vae, const Dataset& data,
              const FlowTrainOptions& options);

 protected:
  Tensor loss(int64_t step, int64_t micro, std::map<std::string, Tensor>& report) override;
  std::string fingerprint() const override;

 private:
  FlowModel& model_;
  FlowTrainOptions flow_;
  const Dataset& data_;
  std::vector<size_t> items_;
  LatentCache latents_;
  CaptionIds ids_;
  Tensor rope_;
  uint32_t start_sum_ = 0;  // of a loaded model's weights
};

/// What the text encoders make of prompts.
FluxCondition encode_prompts(const FlowModel& model, const std::vector<std::string>& prompts);

struct SampleOptions {
  int steps = 8;
  float cfg = 2;  // true guidance against the empty caption; 1: none
  uint64_t seed = 0;
  int64_t rows = 4, columns = 4;
  std::vector<double> levels(const Schedule& schedule) const {
    return schedule.levels(steps, rows * columns);
  }
};
/// Packed latents [B, tokens, channels]; picture b depends on (seed + b) alone.
Tensor sample_latents(Flux1& transformer, const FluxCondition& positive, const FluxCondition& empty,
                      const Schedule& schedule, const SampleOptions& options);

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
