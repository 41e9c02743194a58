// What a controller is trained on: something that plays routing decisions and says how good the result was.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "model/routing/router.h"

namespace vkflux {

struct PlayedQuality {
  double loss = 0;                      // mean over the pictures; lower is better
  std::map<std::string, double> terms;  // by the metric's name, likewise
  std::vector<double> each;             // loss of every picture
  std::map<std::string, std::vector<double>> each_terms;
  int64_t first_picture = 0;  // number of the first picture in the task's set
};

class RoutingTask {
 public:
  virtual ~RoutingTask() = default;
  /// What the controller is asked, one for each step.
  virtual const std::vector<RouteInput>& inputs() const = 0;
  /// Plays one plan on the pictures of an iteration; a function of its arguments alone.
  virtual PlayedQuality play(int64_t iteration, const std::vector<RouteDecision>& decisions) = 0;
};

}  // namespace vkflux
