// The figures of online distillation: tables per layer, their summaries, the console snapshot.
// Names and cadence are those of the reference, so that old and new runs compare.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "model/attention/hkr/students.h"
#include "model/io/json.h"
#include "train/distill/run_ema.h"
#include "train/metrics.h"

namespace vkflux {

/// Metrics of a layer, in the order in which they are reported.
inline constexpr std::array<const char*, 13> kLayerMetrics = {
    "loss",  "mse",       "nmse",           "cosine_similarity", "ema_loss",      "updates",        "ready",
    "sigma", "cfg_scale", "layers_swapped", "layers_total",      "alpha_sigmoid", "ema_cosine_dist"};
/// NaN: absent.
using LayerValues = std::array<double, kLayerMetrics.size()>;
LayerValues no_values();
double& value_of(LayerValues& values, const char* metric);
double value_of(const LayerValues& values, const char* metric);

/// What the summaries say about the whole run.
struct DistillTotals {
  int64_t updates = 0, remaining = 0;
  double log_var_huber = 0, log_var_cosine = 0;
  uint64_t replay_bytes = 0, replay_budget = 0;
};

class DistillMetrics {
 public:
  /// One update of a layer: latest values (those that are finite) and running averages.
  void record(const std::string& layer, const LayerValues& values);
  /// Latest finite values.
  const ByLayer<LayerValues>& latest() const { return latest_; }

  /// Everything that is logged after an update of `layer`.
  Metrics report(const std::string& layer, const Students& students, const DistillTotals& totals) const;
  /// A few lines for people.
  std::string snapshot(const Students& students, const DistillTotals& totals) const;

  io::Json to_json() const;
  /// Error format when it isn't what to_json() made.
  void from_json(const io::Json& json);

 private:
  struct Averages {
    int64_t records = 0;
    LayerValues values;
  };
  std::vector<double> column(const char* metric) const;
  ParetoScore pareto(const Students& students) const;

  ByLayer<LayerValues> latest_;
  ByLayer<Averages> averages_;
};

}  // namespace vkflux
