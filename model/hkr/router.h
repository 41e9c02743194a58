// Which layers use the student in which step, decided before sampling begins.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/attention/attention.h"

namespace vkflux {

/// What a routing decision may depend on, the same in drawing, recomputing and inference: noise level, true
/// guidance and the picture's size in pixels (specification 15, Q-18).
struct RouteInput {
  double sigma = 0, cfg = 1;
  int64_t width = 0, height = 0;
};

/// One step's decisions about the L single blocks.
struct RouteDecision {
  std::vector<uint8_t> student;    // [L], 1 = student; 0 = full attention
  std::vector<float> probability;  // [L] of full attention, by the policy at threshold 0.5
  double threshold = 0.5;
};

class Router {
 public:
  virtual ~Router() = default;
  /// The decisions of all steps of a run; the same (inputs, seed) give the same decisions.
  virtual std::vector<RouteDecision> plan(const std::vector<RouteInput>& steps, uint64_t seed) = 0;
};

/// As the bank understands it: double blocks full, single block i by decision.student[i].
RoutePlan route_plan(const RouteDecision& decision, int64_t double_blocks);

}  // namespace vkflux
