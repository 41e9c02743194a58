// Which attention served every layer of every step, how long it took and what it had to compute.
//
// Tracing waits for the device before and after every attention, so that each has a time of its own; the run
// as a whole is slower for that, and its total is no measure of speed.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "model/attention/attention.h"
#include "model/pipeline.h"

namespace vkflux {

class AttentionTrace final : public AttentionTap {
 public:
  struct Entry {
    int step = 0, pass = 0, layer = 0;  // pass: of the transformer in this step (guidance, repeated steps)
    Served served;
    double ms = 0;         // from recording to the end on the device
    double device_ms = 0;  // the kernels alone; 0 where the device has no timestamps
  };

  /// Profiles the device while it lives.
  explicit AttentionTrace(Device& device);
  ~AttentionTrace() override;
  AttentionTrace(const AttentionTrace&) = delete;
  AttentionTrace& operator=(const AttentionTrace&) = delete;

  void begin(const AttentionCall& call) override;
  void observe(const AttentionCall& call, const Served& served, const Tensor& out) override;

  const std::vector<Entry>& entries() const { return entries_; }

 private:
  double kernels_ms() const;

  Device& device_;
  bool profiled_;
  int step_ = -1, pass_ = -1;
  double started_ = 0, kernels_before_ = 0;
  std::vector<Entry> entries_;
};

/// {"device", "layers", "note", "steps": [{as step_json(), "layers": [...]}]}
nlohmann::ordered_json trace_json(const AttentionTrace& trace, const GenerateResult& result,
                                  const Pipeline& pipeline);

}  // namespace vkflux
