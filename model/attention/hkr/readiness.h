// When a student may be used: an average of its cosine distance, with hysteresis.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace vkflux {

struct ReadinessCriteria {
  double threshold = 0.12;  // largest cosine distance
  int64_t min_updates = 24;
};

struct Readiness {
  ReadinessCriteria criteria;
  std::optional<double> ema_loss, ema_cosine_dist;
  int64_t updates = 0;
  bool ready = false;

  /// Re-evaluates `ready`: a layer that is ready stays so up to 1.2 times the threshold. True when it
  /// changed.
  bool refresh();
  /// Why it isn't ready, with the figures; empty when it is.
  std::string refusal() const;
};

}  // namespace vkflux
