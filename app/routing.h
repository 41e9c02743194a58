// From the routing flags of a command to a router, and from step reports to text and JSON.
#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "model/pipeline.h"
#include "model/routing/controller.h"

namespace vkflux {

struct RoutingArgs {
  std::string ttr, controller;          // files; no ttr: nothing is routed
  std::optional<double> quality_speed;  // 0 to 1, higher is faster; default 0.5, or 1 without a controller
  std::string policy = "ranked";
  double temperature = 1;  // of the stochastic policy
  std::string layers;      // without a controller: the layers that use their students
};

/// Installs the students of args.ttr in the pipeline, loads the controller, and makes routers for settings of
/// the knob. Errors: invalid_argument for flags that contradict each other; those of the files.
class RouterSource {
 public:
  RouterSource(Pipeline& pipeline, RoutingArgs args);

  double default_quality_speed() const;
  const RoutingArgs& args() const { return args_; }
  /// Without a controller only 1 (every ready layer uses its student) and 0 (none does) are possible; with
  /// args.layers the knob is ignored.
  std::shared_ptr<Router> router(double quality_speed, double temperature) const;

 private:
  Pipeline& pipeline_;
  RoutingArgs args_;
  std::shared_ptr<ControllerNet> controller_;
};

/// Numbers with spaces between; of more than 12 the first and the last six.
std::string short_list(const std::vector<int>& numbers);

/// One line, as "step 3/8  sigma 0.7143  threshold 0.500  student 0 2 (2 of 4)  refused 1 (not ready: ...)".
std::string step_summary(const StepReport& report, int64_t steps, int64_t layers);
nlohmann::ordered_json step_json(const StepReport& report);

/// Sums over a run.
struct RunSummary {
  double student_share = 0;  // of all (step, layer) pairs
  int64_t refused = 0;       // (step, layer) pairs that were planned for the student in vain
  double median_step_ms = 0;
  double flops = 0, attention_flops = 0, full_attention_flops = 0;
};
RunSummary summarise(const std::vector<StepReport>& reports, int64_t layers);

double median(std::vector<double> values);

}  // namespace vkflux
