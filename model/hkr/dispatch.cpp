#include "model/hkr/dispatch.h"

#include <fmt/format.h>

#include <cmath>
#include <utility>

namespace vkflux {
namespace {

Dispatch full(std::string reason) {
  return {false, true, false, std::move(reason)};
}

Dispatch while_training(const DispatchFacts& f) {
  Dispatch d;
  if (f.training_enabled) {
    if (!f.swapped) return full("not trained in this step");
    d.train = true;
  }
  if (!f.preview) {
    d.reason = "no preview while training";
  } else if (!f.ready) {
    d.reason = "not ready";
  } else {
    d.student = true;
  }
  return d;
}

// Why the routing keeps full attention; empty: it doesn't.
std::string routed_to_full(const StepRouting& r, int64_t layer) {
  if (r.failed) return "the controller failed";
  if (layer < 0 || layer >= static_cast<int64_t>(r.mask.size()))
    return fmt::format("single block {} is outside of the controller's {}", layer, r.mask.size());
  if (static_cast<double>(r.mask[static_cast<size_t>(layer)]) > r.threshold)
    return "routed to full attention";
  return {};
}

}  // namespace

Dispatch dispatch(const DispatchFacts& f) {
  if (!f.handled) return full("not a single block in the range of layers");
  if (!f.mask_supported) return full("not a key padding mask");
  if (f.training_mode) return while_training(f);
  if (f.routing) {
    const std::string reason = routed_to_full(*f.routing, f.layer);
    if (!reason.empty()) return full(reason);
  }
  if (!f.ready) return full("not ready");
  if (std::isfinite(f.last_loss) && f.max_safe_loss > 0 && f.last_loss > f.max_safe_loss)
    return full("its last training loss is above the safe one");
  return {true, false, false, {}};
}

Dispatch student_failed(Dispatch plan, const std::string& why) {
  plan.student = false;
  plan.teacher = true;
  plan.reason = why;
  return plan;
}

}  // namespace vkflux
