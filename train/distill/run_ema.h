// Averages over sampling runs, which readiness is judged by: losses and cosine distances are only collected
// during a run; a flush folds their means into each layer's moving averages.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "model/attention/by_layer.h"
#include "model/attention/hkr/readiness.h"
#include "model/io/json.h"

namespace vkflux {

/// What one flush did to one layer.
struct EmaFlush {
  std::string layer;
  size_t losses = 0, distances = 0;  // how many were averaged
  bool changed = false;              // readiness
};

/// The reference's events in order, for an update of `layer`: begin_call(sigma) before the forward pass,
/// add_loss() after the optimiser's step, add_similarity(), then flush_due() -> flush().
class RunEma {
 public:
  static constexpr double kDecay = 0.9;
  static constexpr double kSigmaJump = 1.5;   // a noise level this much above the last one starts a new run
  static constexpr size_t kFlushLosses = 20;  // pending over all layers together

  /// A call at this noise level; true: a new run has begun, flush before going on. Absent and non-finite
  /// levels change nothing.
  bool begin_call(std::optional<double> sigma);
  /// Collects the loss of one update, counts the update and re-evaluates readiness; true when that changed.
  bool add_loss(const std::string& layer, double loss, Readiness& readiness);
  /// Collects the distance, 1 - similarity clamped to [0, 1]; non-finite ones are dropped.
  void add_similarity(const std::string& layer, double cosine_similarity);
  bool flush_due() const;
  /// Folds everything that is pending into the averages of its layers and re-evaluates their readiness, in
  /// order of the layers. Layers that aren't in `readiness` are dropped.
  std::vector<EmaFlush> flush(const ByLayer<Readiness*>& readiness);

  size_t pending_losses(const std::string& layer) const;
  std::optional<double> last_sigma() const { return last_sigma_; }
  void clear();

  /// For a checkpoint: continuing from restore() gives the same bits. Error format.
  io::Json to_json() const;
  void restore(const io::Json& state);

 private:
  struct Pending {
    std::vector<double> losses, distances;
  };
  ByLayer<Pending> pending_;
  std::optional<double> last_sigma_;
};

/// A layer as the Pareto score sees it.
struct TrackedLayer {
  Readiness readiness;
  std::optional<double> cosine_similarity;  // latest, used while there is no average
};

struct ParetoScore {
  double score = 0;  // ready layers * (1 - the worst of their distances)
  int64_t ready = 0;
  double worst = 0;  // NaN when none is ready
};
ParetoScore pareto_score(const std::vector<TrackedLayer>& layers);

}  // namespace vkflux
