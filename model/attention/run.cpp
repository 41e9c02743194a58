#include "model/attention/run.h"

#include <fmt/format.h>

#include <cmath>

#include "autograd/ops.h"
#include "autograd/tape.h"
#include "vk/error.h"

namespace vkflux {
namespace {

constexpr int64_t kSlot = 64;  // floats: where a tensor may begin

}  // namespace

Tensor AttentionPass::forward(const AttentionCall& call) const {
  return run_ ? run_->serve(call, kind(call.layer)) : FullAttention().forward(call);
}

AttentionKind AttentionPass::kind(int layer) const {
  return run_ ? kinds_.at(static_cast<size_t>(layer)) : AttentionKind::full;
}

bool AttentionPass::recordable(int layer, const TokenLayout& tokens, const StepInfo& step) const {
  return !run_ || run_->strategy(layer, kind(layer)).recordable(tokens, step);
}

AttentionRun::AttentionRun(Device& device, const AttentionBank& bank, std::vector<AttentionTap*> taps)
    : layers_(bank.layers()), strategies_(bank.strategies()), taps_(std::move(taps)) {
  if (!strategies_.empty()) checks_ = Tensor::zeros(device, {static_cast<int64_t>(layers_.size()), kSlot});
}

Attention& AttentionRun::strategy(int layer, AttentionKind kind) {
  if (kind == AttentionKind::full) return full_;
  return *strategies_.at({layer, kind});
}

std::vector<float> AttentionRun::step_numbers(AttentionKind kind, const StepInfo& step) const {
  for (const auto& [key, strategy] : strategies_) {
    if (key.second == kind) return strategy->step_numbers(step);
  }
  return {};
}

Served AttentionRun::decide(int layer, const AttentionShape& shape, const TokenLayout& tokens) const {
  Served s;
  s.full_flops = s.flops = full_.cost(shape).flops;
  const auto i = static_cast<size_t>(layer);
  if (i >= plan_.size() || plan_[i] == AttentionKind::full) return s;
  s.asked = plan_[i];
  const auto found = strategies_.find({layer, s.asked});
  const Tensor& mask = tokens.key_mask;
  if (found == strategies_.end()) {
    s.refusal = fmt::format("this layer has no {} attention", name(s.asked));
  } else if (const auto it = barred_.find(layer); it != barred_.end()) {
    s.refusal = it->second;
  } else if (mask && mask.shape() != Shape{shape.batch, shape.text + shape.image}) {
    s.refusal = fmt::format("a mask of shape {} is no key mask", mask.shape().str());
  } else if (tokens.kept > 0) {
    s.refusal = "only full attention sees tokens that are kept from before";
  } else {
    s.refusal = found->second->refusal(shape);
  }
  if (!s.refusal.empty()) return s;
  s.kind = s.asked;
  s.flops = found->second->cost(shape).flops;
  return s;
}

AttentionPass AttentionRun::pass(int64_t batch, const TokenLayout& tokens) {
  AttentionPass p;
  p.run_ = this;
  served_.clear();
  for (size_t i = 0; i < layers_.size(); ++i) {
    const AttentionLayer& l = layers_[i];
    const int layer = static_cast<int>(i);
    served_.push_back(
        decide(layer, {batch, l.heads, tokens.text, tokens.image, l.head_dim, tokens.kept}, tokens));
    p.kinds_.push_back(served_.back().kind);
    if (served_.back().kind != AttentionKind::full) unsettled_.push_back(layer);
  }
  ++passes_;
  return p;
}

Tensor AttentionRun::serve(const AttentionCall& call, AttentionKind kind) {
  {
    const auto untaped = Tape::pause();
    for (AttentionTap* tap : taps_) tap->begin(call);
  }
  Tensor full;
  for (AttentionTap* tap : taps_) {
    if (again_ || !tap->wants_full(call)) continue;
    const auto untaped = Tape::pause();
    if (!full.defined()) full = full_.forward(call);
    tap->taught(call, full);
  }
  Served& served = served_[static_cast<size_t>(call.layer)];
  Tensor out;
  if (kind != AttentionKind::full) {
    try {
      out = strategy(call.layer, kind).forward(call);
    } catch (const Error& e) {
      if (e.code() == ErrorCode::device_lost || e.code() == ErrorCode::cancelled ||
          e.code() == ErrorCode::out_of_device_memory || e.code() == ErrorCode::internal) {
        throw;
      }
      barred_[call.layer] = served.refusal = e.what();
      served.kind = AttentionKind::full;
      served.flops = served.full_flops;
    }
  }
  if (served.kind == AttentionKind::full) out = full.defined() ? full : full_.forward(call);
  const auto untaped = Tape::pause();
  if (served.kind != AttentionKind::full) {
    // A sum is finite only if every term is.
    const Tensor slot = checks_.slice(0, call.layer, 1).slice(1, 0, 1).view({1});
    op::accumulate(slot, op::reshape(op::sum_all(out), {1}));
  }
  for (AttentionTap* tap : taps_) tap->observe(call, served, out);
  return out;
}

Tensor AttentionRun::step(const RoutePlan& plan, const std::function<Tensor()>& passes) {
  if (plan.size() > layers_.size()) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("a plan for {} layers of {}", plan.size(), layers_.size()));
  }
  plan_ = plan;
  for (again_ = false;; again_ = true) {
    passes_ = 0;
    unsettled_.clear();
    const Tensor out = passes();
    if (settle()) return out;
  }
}

bool AttentionRun::settle() {
  if (unsettled_.empty()) return true;
  const std::vector<float> host = checks_.to_host();
  checks_.fill_zero();
  bool good = true;
  for (const int layer : unsettled_) {
    if (std::isfinite(host[static_cast<size_t>(layer * kSlot)])) continue;
    barred_[layer] = "its output wasn't finite";
    good = false;
  }
  return good;
}

}  // namespace vkflux
