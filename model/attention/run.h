// The attention of one run of a backbone (a picture, say): who serves each layer in each step, the check that
// what students answered was finite, and the taps.
//
//   AttentionRun run(device, backbone.attention(), taps);
//   velocity = run.step(plan, [&] { return backbone.forward({..., .attention = &run}); });
//
// A forward pass asks AttentionRun::pass() once, when it begins; from then on its decisions stand, whether
// the pass's commands are recorded now or replayed.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "model/attention/bank.h"

namespace vkflux {

class AttentionRun;

/// The attention of one forward pass. Made without a run it is full attention, unwatched: training.
class AttentionPass {
 public:
  AttentionPass() = default;

  /// The call's answer, by the layer's strategy.
  Tensor forward(const AttentionCall& call) const;
  AttentionKind kind(int layer) const;
  /// One recording of the layer's attention serves every step.
  bool recordable(int layer, const TokenLayout& tokens, const StepInfo& step) const;

 private:
  friend class AttentionRun;
  AttentionRun* run_ = nullptr;
  std::vector<AttentionKind> kinds_;  // by layer
};

class AttentionRun {
 public:
  /// Uses the strategies that the bank has now. Taps aren't owned and are called in order.
  AttentionRun(Device& device, const AttentionBank& bank, std::vector<AttentionTap*> taps = {});
  AttentionRun(const AttentionRun&) = delete;
  AttentionRun& operator=(const AttentionRun&) = delete;

  /// One step under a plan: runs the passes, and again while a strategy's answer wasn't finite; such a layer
  /// uses full attention for the rest of the run. Waits for the device only when something else than full
  /// attention served. Error invalid_argument for a plan longer than the layers.
  Tensor step(const RoutePlan& plan, const std::function<Tensor()>& passes);
  /// By layer, of the last pass.
  const std::vector<Served>& served() const { return served_; }
  /// Forward passes of the last step, those thrown away not counted.
  int passes() const { return passes_; }

  /// The one place that decides who serves: full attention unless everything is right.
  AttentionPass pass(int64_t batch, const TokenLayout& tokens);

  bool tapped() const { return !taps_.empty(); }
  /// The numbers that strategies of a kind read in this step; empty when there are none of that kind.
  std::vector<float> step_numbers(AttentionKind kind, const StepInfo& step) const;

 private:
  friend class AttentionPass;
  Served decide(int layer, const AttentionShape& shape, const TokenLayout& tokens) const;
  Attention& strategy(int layer, AttentionKind kind);
  Tensor serve(const AttentionCall& call, AttentionKind kind);
  bool settle();

  std::vector<AttentionLayer> layers_;
  AttentionBank::Strategies strategies_;
  std::vector<AttentionTap*> taps_;
  FullAttention full_;
  RoutePlan plan_;
  std::vector<Served> served_;
  std::map<int, std::string> barred_;  // layer -> why
  int passes_ = 0;
  bool again_ = false;  // the step is being made again, so taps have been taught
  Tensor checks_;       // [layers, slot]: sums of strategies' answers of a step, in each row's first element
  std::vector<int> unsettled_;  // layers that strategies served in this step
};

}  // namespace vkflux
