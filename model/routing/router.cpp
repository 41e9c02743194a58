#include "model/routing/router.h"

#include <fmt/format.h>

#include "model/routing/policy.h"
#include "vk/error.h"

namespace vkflux {

std::vector<uint8_t> layer_flags(const std::vector<int>& numbers, size_t layers) {
  std::vector<uint8_t> out(layers, 0);
  for (const int i : numbers) {
    if (i < 0 || static_cast<size_t>(i) >= layers)
      throw Error(ErrorCode::invalid_argument, fmt::format("layer {} of {} that may be replaced", i, layers));
    out[static_cast<size_t>(i)] = 1;
  }
  return out;
}

std::vector<RouteDecision> FixedRouter::plan(const std::vector<RouteInput>& steps, uint64_t /*seed*/) {
  RouteDecision d;
  d.student = student_;
  for (const uint8_t s : student_) d.probability.push_back(s ? 0.0f : 1.0f);
  return std::vector<RouteDecision>(steps.size(), d);
}

RandomRouter::RandomRouter(double share, std::vector<uint8_t> eligible)
    : share_(share), eligible_(std::move(eligible)) {
  if (!(share >= 0 && share <= 1)) {
    throw Error(ErrorCode::invalid_argument, fmt::format("a student share of {}: expected 0 to 1", share));
  }
}

std::vector<RouteDecision> RandomRouter::plan(const std::vector<RouteInput>& steps, uint64_t seed) {
  std::vector<RouteDecision> out(steps.size());
  for (size_t n = 0; n < steps.size(); ++n) {
    for (size_t l = 0; l < eligible_.size(); ++l) {
      const bool student =
          eligible_[l] && policy_uniform(seed, static_cast<uint32_t>(n), static_cast<uint32_t>(l)) < share_;
      out[n].student.push_back(student);
      out[n].probability.push_back(eligible_[l] ? static_cast<float>(1 - share_) : 1.0f);
    }
  }
  return out;
}

RoutePlan route_plan(const RouteDecision& decision, const BackboneLayout& layout) {
  const std::vector<int> layers = layout.replaceable();
  if (decision.student.size() != layers.size()) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("the router decides about {} layers, but of this transformer {} may be replaced",
                            decision.student.size(), layers.size()));
  }
  RoutePlan plan(layout.layers.size(), AttentionKind::full);
  for (size_t l = 0; l < layers.size(); ++l) {
    if (decision.student[l]) plan[static_cast<size_t>(layers[l])] = decision.kind;
  }
  return plan;
}

}  // namespace vkflux
