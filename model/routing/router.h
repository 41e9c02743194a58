// Which layers use the student in which step, decided before sampling begins.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "model/backbone.h"

namespace vkflux {

/// What a routing decision may depend on, the same in drawing, recomputing and inference: noise level, true
/// guidance and the picture's size in pixels.
struct RouteInput {
  double sigma = 0, cfg = 1;
  int64_t width = 0, height = 0;
};

/// One step's decisions about the L layers that may be replaced, in their order.
struct RouteDecision {
  AttentionKind kind = AttentionKind::hkr;  // what serves instead of full attention
  std::vector<uint8_t> student;             // [L], 1 = that kind; 0 = full attention
  std::vector<float> probability;           // [L] of full attention, by the policy at threshold 0.5
  double threshold = 0.5;
};

class Router {
 public:
  virtual ~Router() = default;
  /// The decisions of all steps of a run; the same (inputs, seed) give the same decisions.
  virtual std::vector<RouteDecision> plan(const std::vector<RouteInput>& steps, uint64_t seed) = 0;
};

/// Nothing is random: every step uses the same layers.
class FixedRouter final : public Router {
 public:
  /// student[l] = 1: layer l uses its student in every step.
  explicit FixedRouter(std::vector<uint8_t> student) : student_(std::move(student)) {}
  std::vector<RouteDecision> plan(const std::vector<RouteInput>& steps, uint64_t seed) override;

 private:
  std::vector<uint8_t> student_;
};

/// Every eligible layer uses its student with one probability, whatever the step: what a learnt policy must
/// beat.
class RandomRouter final : public Router {
 public:
  /// share: probability of the student; eligible[l] = 0: layer l stays on full attention. Error
  /// invalid_argument for shares outside [0, 1].
  RandomRouter(double share, std::vector<uint8_t> eligible);
  std::vector<RouteDecision> plan(const std::vector<RouteInput>& steps, uint64_t seed) override;

 private:
  double share_;
  std::vector<uint8_t> eligible_;
};

/// One flag for each of `layers` replaceable layers from a list of their numbers (Students::serving(), say).
/// Error invalid_argument for a number outside.
std::vector<uint8_t> layer_flags(const std::vector<int>& numbers, size_t layers);

/// What the decision means for all layers. Error invalid_argument when it is about another number of layers.
RoutePlan route_plan(const RouteDecision& decision, const BackboneLayout& layout);

}  // namespace vkflux
