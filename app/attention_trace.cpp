#include "app/attention_trace.h"

#include <chrono>

#include "app/routing.h"

namespace vkflux {
namespace {

double now_ms() {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

nlohmann::ordered_json entry_json(const AttentionTrace::Entry& e, const BackboneLayout& layout) {
  return {{"layer", e.layer},
          {"name", layout.layers[static_cast<size_t>(e.layer)].name},
          {"pass", e.pass},
          {"kind", name(e.served.kind)},
          {"refusal", e.served.refusal},
          {"ms", e.ms},
          {"device_ms", e.device_ms},
          {"flops", e.served.flops},
          {"full_flops", e.served.full_flops}};
}

}  // namespace

AttentionTrace::AttentionTrace(Device& device) : device_(device), profiled_(device.profiler().enabled()) {
  device_.stream().sync();
  device_.profiler().enable(true);
}

AttentionTrace::~AttentionTrace() {
  device_.profiler().enable(profiled_);
}

double AttentionTrace::kernels_ms() const {
  double sum = 0;
  for (const auto& [kernel, time] : device_.profiler().table()) sum += time.ms;
  return sum;
}

void AttentionTrace::begin(const AttentionCall& call) {
  if (call.step.index != step_) pass_ = -1;
  step_ = call.step.index;
  if (call.layer == 0) ++pass_;
  device_.stream().sync();
  kernels_before_ = kernels_ms();
  started_ = now_ms();
}

void AttentionTrace::observe(const AttentionCall& call, const Served& served, const Tensor&) {
  device_.stream().sync();
  Entry e;
  e.ms = now_ms() - started_;
  e.device_ms = kernels_ms() - kernels_before_;
  e.step = step_;
  e.pass = pass_;
  e.layer = call.layer;
  e.served = served;
  entries_.push_back(e);
}

nlohmann::ordered_json trace_json(const AttentionTrace& trace, const GenerateResult& result,
                                  const Pipeline& pipeline) {
  const BackboneLayout& layout = pipeline.info().layout;
  nlohmann::ordered_json j{
      {"device", pipeline.device().caps().device_name},
      {"family", layout.family},
      {"layers", layout.layers.size()},
      {"replaceable_layers", layout.replaceable().size()},
      {"note", "tracing waits before and after every attention: compare the layers, not the totals"},
      {"steps", nlohmann::ordered_json::array()}};
  for (const StepReport& r : result.reports) {
    nlohmann::ordered_json step = step_json(r);
    step["layers"] = nlohmann::ordered_json::array();
    for (const AttentionTrace::Entry& e : trace.entries()) {
      if (e.step == r.index) step["layers"].push_back(entry_json(e, layout));
    }
    j["steps"].push_back(std::move(step));
  }
  return j;
}

}  // namespace vkflux
