#include "app/attention_trace.h"

#include <chrono>

#include "app/routing.h"

namespace vkflux {
namespace {

double now_ms() {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
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

void AttentionTrace::end(const AttentionCall& call, const Attention& by, const std::string& refusal) {
  device_.stream().sync();
  Entry e;
  e.ms = now_ms() - started_;
  e.device_ms = kernels_ms() - kernels_before_;
  e.step = step_;
  e.pass = pass_;
  e.layer = call.layer;
  e.kind = by.name();
  e.refusal = refusal;
  const AttentionShape shape = shape_of(call);
  e.flops = by.cost(shape).flops;
  e.full_flops = FullAttention().cost(shape).flops;
  entries_.push_back(std::move(e));
}

nlohmann::ordered_json trace_json(const AttentionTrace& trace, const GenerateResult& result,
                                  const Pipeline& pipeline) {
  const Flux1Config& c = pipeline.transformer_config();
  nlohmann::ordered_json j{
      {"device", pipeline.device().caps().device_name},
      {"double_blocks", c.depth},
      {"single_blocks", c.depth_single},
      {"note", "tracing waits before and after every attention: compare the layers, not the totals"},
      {"steps", nlohmann::ordered_json::array()}};
  for (const StepReport& r : result.reports) {
    nlohmann::ordered_json step = step_json(r);
    step["layers"] = nlohmann::ordered_json::array();
    for (const AttentionTrace::Entry& e : trace.entries()) {
      if (e.step != r.index) continue;
      const bool single = e.layer >= c.depth;
      step["layers"].push_back(
          {{"layer", e.layer},
           {"block", (single ? "single." : "double.") + std::to_string(single ? e.layer - c.depth : e.layer)},
           {"pass", e.pass},
           {"kind", e.kind},
           {"refusal", e.refusal},
           {"ms", e.ms},
           {"device_ms", e.device_ms},
           {"flops", e.flops},
           {"full_flops", e.full_flops}});
    }
    j["steps"].push_back(std::move(step));
  }
  return j;
}

}  // namespace vkflux
