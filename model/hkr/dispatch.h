// Who answers an attention call: the full attention or the student, and whether the call is trained on. The
// reference's order of rules (specification 3.5) as a pure function, for hosts that ask call by call;
// our own pipelines plan their routes before the first step.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <vector>

namespace vkflux {

/// A controller's (or the host's) routing of one step.
struct StepRouting {
  std::vector<float> mask;  // by single block; above the threshold: full attention
  double threshold = 0.5;
  bool failed = false;  // the controller couldn't be evaluated
};

struct DispatchFacts {
  bool handled = true;         // a single block in the range of layers
  bool mask_supported = true;  // no mask, or a key padding mask
  int64_t layer = 0;           // single block
  bool ready = false;

  bool training_mode = false;
  bool training_enabled = true;  // and updates remain
  bool swapped = true;           // this layer is trained in this step
  bool preview = true;           // ready students already answer while training

  std::optional<StepRouting> routing;  // absent: no controller and no override
  double last_loss = std::numeric_limits<double>::quiet_NaN();
  double max_safe_loss = 0.5;  // 0 or less: no such guard
};

struct Dispatch {
  bool student = false;  // false: full attention answers
  bool teacher = true;   // full attention must be computed whether or not a student answers
  bool train = false;    // store a sample and train on it
  std::string reason;    // why full attention answers; empty: the student does
};

Dispatch dispatch(const DispatchFacts& facts);
/// What is left when the student failed or gave something that isn't finite: full attention.
Dispatch student_failed(Dispatch plan, const std::string& why);

}  // namespace vkflux
