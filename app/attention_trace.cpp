#include "app/attention_trace.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "app/routing.h"

namespace vkflux {
namespace {

double now_ms() {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

/// Who served is in the report of the step.
nlohmann::ordered_json entry_json(const AttentionTrace::Entry& e, const StepReport& r,
                                  const Pipeline& pipeline) {
  const int first = static_cast<int>(pipeline.transformer_config().depth), block = e.layer - first;
  const bool student = std::find(r.student.begin(), r.student.end(), block) != r.student.end();
  const double full = FullAttention().cost(e.shape).flops;
  double flops = full;
  if (student && pipeline.students())
    flops = HkrAttention(pipeline.students()->layers.at(block)).cost(e.shape).flops;
  std::string refusal;
  for (const RefusedBlock& b : r.refused) {
    if (b.block == block) refusal = b.reason;
  }
  return {{"layer", e.layer},
          {"block", fmt::format("{}.{}", block < 0 ? "double" : "single", block < 0 ? e.layer : block)},
          {"pass", e.pass},
          {"kind", name(student ? AttentionKind::hkr : AttentionKind::full)},
          {"refusal", refusal},
          {"ms", e.ms},
          {"device_ms", e.device_ms},
          {"flops", flops},
          {"full_flops", full}};
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

void AttentionTrace::observe(const AttentionCall& call, const Tensor&) {
  device_.stream().sync();
  Entry e;
  e.ms = now_ms() - started_;
  e.device_ms = kernels_ms() - kernels_before_;
  e.step = step_;
  e.pass = pass_;
  e.layer = call.layer;
  e.shape = shape_of(call);
  entries_.push_back(e);
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
      if (e.step == r.index) step["layers"].push_back(entry_json(e, r, pipeline));
    }
    j["steps"].push_back(std::move(step));
  }
  return j;
}

}  // namespace vkflux
