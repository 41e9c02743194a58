// Routed sampling of a transformer against its own full sampling from the same noise.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "model/latent_codec.h"
#include "model/sampler/noise.h"
#include "model/sampler/request.h"
#include "train/controller/reward.h"
#include "train/controller/routing_task.h"

namespace vkflux {

struct SamplingTaskOptions {
  SamplingRequest sampling;  // of every picture
  int64_t images = 8;        // pictures that share a plan
  int64_t seeds = 4;         // pictures of a prompt
  uint64_t seed = 0;         // of the first picture; the next ones count up
  NoiseMode noise = NoiseMode::counter;
  uint64_t cache_bytes = 256ull << 20;  // of full-attention results kept
};

/// The pictures are prompts times seeds, shuffled once and cut into groups of `images`; an iteration plays
/// one group, every group once an epoch. Full-attention results are kept by group, so that they are a
/// function of the group alone, whatever was played before.
class SamplingTask final : public RoutingTask {
 public:
  /// prompts: conditions of all prompts [P, ...]; empty: the other side of cfg [1, ...], when cfg isn't 1.
  /// codec is needed by rewards on images. Students must be installed in the backbone's bank.
  SamplingTask(Backbone& backbone, const ModelInfo& model, const LatentCodec* codec, Condition prompts,
               std::optional<Condition> empty, const QualityLoss& quality,
               const SamplingTaskOptions& options);

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

  Backbone& backbone_;
  LatentGeometry geometry_;
  const LatentCodec* codec_;
  Condition prompts_;
  std::optional<Condition> empty_;
  const QualityLoss& quality_;
  SamplingTaskOptions options_;
  SamplingSetup setup_;
  std::vector<RouteInput> inputs_;
  std::vector<size_t> order_;
  int64_t groups_ = 0;
  std::deque<Cached> cache_;
  uint64_t cached_bytes_ = 0;
  std::vector<std::string> refusals_;
};

}  // namespace vkflux
