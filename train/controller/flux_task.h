// Routed sampling of a FLUX.1 transformer against its own full sampling from the same noise.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "model/sampler/denoise.h"
#include "model/sampler/noise.h"
#include "model/vae/autoencoder.h"
#include "train/controller/reward.h"
#include "train/controller/routing_task.h"

namespace vkflux {

struct FluxTaskOptions {
  std::vector<double> levels;  // falling, from 1 to 0
  float guidance = 3.5f, cfg = 1;
  int64_t rows = 0, columns = 0;  // of image tokens
  int64_t width = 0, height = 0;  // in pixels
  Shape latent;                   // [z, h, w]
  int64_t images = 8;             // pictures that share a plan
  int64_t seeds = 4;              // pictures of a prompt
  uint64_t seed = 0;              // of the first picture; the next ones count up
  NoiseMode noise = NoiseMode::counter;
  uint64_t cache_bytes = 256ull << 20;  // of full-attention results kept
};

/// The pictures are prompts times seeds, shuffled once and cut into groups of `images`; an iteration plays
/// one group, every group once an epoch. Full-attention results are kept by group, so that they are a
/// function of the group alone, whatever was played before.
class FluxRoutingTask final : public RoutingTask {
 public:
  /// prompts: conditions of all prompts [P, ...]; empty: the other side of cfg [1, ...], when cfg isn't 1.
  /// vae is needed by rewards on images. Students must be installed in the transformer's bank.
  FluxRoutingTask(Flux1& transformer, const AutoencoderKL* vae, FluxCondition prompts,
                  std::optional<FluxCondition> empty, const QualityLoss& quality,
                  const FluxTaskOptions& options);

  const std::vector<RouteInput>& inputs() const override { return inputs_; }
  PlayedQuality play(int64_t iteration, const std::vector<RouteDecision>& decisions) override;

  int64_t groups() const { return groups_; }
  int64_t pictures() const { return static_cast<int64_t>(order_.size()); }
  /// The same for a group of one's choice.
  PlayedQuality play_group(int64_t group, const std::vector<RouteDecision>& decisions);
  /// Layers that were asked for the student and used full attention in the last run, with the reason.
  const std::vector<std::string>& refusals() const { return refusals_; }

 private:
  struct Result {
    Tensor latents, images;
  };
  struct Cached {
    int64_t group;
    Result result;
  };
  /// Packed latents of a group under the plans (empty: full attention).
  Result sample(int64_t group, const std::vector<RoutePlan>& plans);
  Result teacher(int64_t group);
  int64_t picture(int64_t group, int64_t b) const;
  FluxCondition conditions(int64_t group) const;

  Flux1& transformer_;
  const AutoencoderKL* vae_;
  FluxCondition prompts_;
  std::optional<FluxCondition> empty_;
  const QualityLoss& quality_;
  FluxTaskOptions options_;
  std::vector<RouteInput> inputs_;
  std::vector<size_t> order_;
  int64_t groups_ = 0;
  std::deque<Cached> cache_;
  uint64_t cached_bytes_ = 0;
  std::vector<std::string> refusals_;
};

}  // namespace vkflux
