#include "model/attention/attention.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "autograd/ops.h"
#include "autograd/tape.h"
#include "vk/error.h"

namespace vkflux {

Tensor FullAttention::forward(const AttentionCall& call) {
  op::AttentionOptions options;
  options.key_mask = call.tokens.key_mask;
  options.f16 = call.f16;
  return op::attention(call.q, call.k, call.v, options);
}

uint64_t FullAttention::scratch(const AttentionShape& s) const {
  return static_cast<uint64_t>(s.batch * s.heads * (s.text + s.image)) * sizeof(float);  // log-sum-exp
}

Cost FullAttention::cost(const AttentionShape& s) const {
  const double rows = static_cast<double>(s.batch * s.heads), n = static_cast<double>(s.text + s.image),
               d = static_cast<double>(s.head_dim);
  Cost cost{};
  cost.flops = static_cast<decltype(cost.flops)>(4 * rows * n * n * d);
  cost.bytes = static_cast<decltype(cost.bytes)>(4 * rows * n * d * sizeof(float));
  return cost;
}

const char* name(AttentionKind kind) {
  switch (kind) {
    case AttentionKind::full:
      return "full";
    case AttentionKind::hkr:
      return "hkr";
  }
  return "";
}

AttentionShape shape_of(const AttentionCall& call) {
  return {call.q.dim(0), call.q.dim(1), call.tokens.text, call.tokens.image, call.q.dim(3)};
}

void AttentionBank::set(int layer, AttentionKind kind, std::shared_ptr<Attention> strategy) {
  if (kind == AttentionKind::full)
    throw Error(ErrorCode::invalid_argument, "full attention can't be replaced");
  ++version_;
  if (strategy) {
    strategies_[{layer, kind}] = std::move(strategy);
  } else {
    strategies_.erase({layer, kind});
  }
}

Attention* AttentionBank::find(int layer, AttentionKind kind) {
  if (kind == AttentionKind::full) return &full_;
  const auto it = strategies_.find({layer, kind});
  return it == strategies_.end() ? nullptr : it->second.get();
}

Attention& AttentionBank::admit(const AttentionCall& call) {
  const auto layer = static_cast<size_t>(call.layer);
  if (layer >= served_.size()) served_.resize(layer + 1);
  ServedLayer& served = served_[layer];
  served = {};
  const AttentionKind asked = layer < plan_.size() ? plan_[layer] : AttentionKind::full;
  if (asked == AttentionKind::full) return full_;
  Attention* strategy = find(call.layer, asked);
  const Tensor& mask = call.tokens.key_mask;
  if (!strategy) {
    served.refusal = fmt::format("this layer has no {} attention", vkflux::name(asked));
  } else if (const auto it = barred_.find(call.layer); it != barred_.end()) {
    served.refusal = it->second;
  } else if (mask && mask.shape() != Shape{call.k.dim(0), call.k.dim(2)}) {
    served.refusal = fmt::format("a mask of shape {} is no key mask", mask.shape().str());
  } else {
    served.refusal = strategy->refusal(call);
  }
  if (!served.refusal.empty()) return full_;
  served.kind = asked;
  return *strategy;
}

void AttentionBank::add_tap(AttentionTap* tap) {
  taps_.push_back(tap);
}

void AttentionBank::remove_tap(AttentionTap* tap) {
  taps_.erase(std::remove(taps_.begin(), taps_.end(), tap), taps_.end());
}

AttentionKind AttentionBank::planned(const AttentionCall& call) {
  admit(call);
  return served_[static_cast<size_t>(call.layer)].kind;
}

void AttentionBank::replayed(int layer) {
  if (served_[static_cast<size_t>(layer)].kind != AttentionKind::full) unsettled_.push_back(layer);
}

Tensor AttentionBank::check_slot(Device& device, int layer) {
  constexpr int64_t kSlot = 64;  // floats: where a tensor may begin
  const int64_t last = std::max(layer, strategies_.empty() ? 0 : strategies_.rbegin()->first.first);
  if (!checks_.defined() || checks_.dim(0) <= layer || &checks_.device() != &device) {
    const RegionScope common(device.pool(), 0);
    const Tensor old = checks_;
    checks_ = Tensor::zeros(device, {last + 1, kSlot});
    if (old.defined() && &old.device() == &device) op::accumulate(checks_.slice(0, 0, old.dim(0)), old);
    ++version_;
  }
  return checks_.slice(0, layer, 1).slice(1, 0, 1).view({1});
}

Tensor AttentionBank::forward(const AttentionCall& call) {
  {
    const auto untaped = Tape::pause();
    for (AttentionTap* tap : taps_) tap->begin(call);
  }
  Attention& strategy = admit(call);
  const Tensor out = strategy.forward(call);
  const auto untaped = Tape::pause();
  if (&strategy != &full_) {
    // A sum is finite only if every term is.
    op::accumulate(check_slot(out.device(), call.layer), op::reshape(op::sum_all(out), {1}));
    unsettled_.push_back(call.layer);
  }
  for (AttentionTap* tap : taps_) tap->observe(call, out);
  return out;
}

bool AttentionBank::settle() {
  if (unsettled_.empty()) return true;
  const std::vector<float> host = checks_.to_host();
  checks_.fill_zero();
  bool good = true;
  for (const int layer : unsettled_) {
    if (std::isfinite(host[static_cast<size_t>(layer * checks_.dim(1))])) continue;
    barred_[layer] = "its output wasn't finite";
    good = false;
  }
  unsettled_.clear();
  return good;
}

}  // namespace vkflux
