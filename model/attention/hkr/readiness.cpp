#include "model/attention/hkr/readiness.h"

#include <fmt/format.h>

#include <limits>

namespace vkflux {
namespace {

constexpr double kHysteresis = 1.2;

}  // namespace

bool Readiness::refresh() {
  const bool before = ready;
  const double distance = ema_cosine_dist.value_or(std::numeric_limits<double>::infinity());
  const double bound = ready ? kHysteresis * criteria.threshold : criteria.threshold;
  ready = updates >= criteria.min_updates && distance <= bound;  // false for NaN
  return ready != before;
}

std::string Readiness::refusal() const {
  if (ready) return {};
  if (updates < criteria.min_updates)
    return fmt::format("not ready: {} of {} updates", updates, criteria.min_updates);
  if (!ema_cosine_dist) return "not ready: no cosine distance measured yet";
  return fmt::format("not ready: cosine distance {:.4g}, at most {:.4g} is allowed", *ema_cosine_dist,
                     criteria.threshold);
}

}  // namespace vkflux
