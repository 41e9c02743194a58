#include "model/attention/attention.h"

#include <algorithm>

#include "autograd/ops.h"
#include "autograd/tape.h"

namespace vkflux {

Tensor FullAttention::forward(const AttentionCall& call) {
  op::AttentionOptions options;
  options.key_mask = call.tokens.key_mask;
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

void AttentionBank::set(int layer, std::shared_ptr<Attention> strategy) {
  const auto i = static_cast<size_t>(layer);
  if (i >= strategies_.size()) strategies_.resize(i + 1);
  strategies_[i] = std::move(strategy);
}

Attention& AttentionBank::at(int layer) {
  const auto i = static_cast<size_t>(layer);
  if (i < strategies_.size() && strategies_[i]) return *strategies_[i];
  return full_;
}

void AttentionBank::add_tap(AttentionTap* tap) {
  taps_.push_back(tap);
}

void AttentionBank::remove_tap(AttentionTap* tap) {
  taps_.erase(std::remove(taps_.begin(), taps_.end(), tap), taps_.end());
}

Tensor AttentionBank::forward(const AttentionCall& call) {
  const Tensor out = at(call.layer).forward(call);
  if (!taps_.empty()) {
    const auto untaped = Tape::pause();
    for (AttentionTap* tap : taps_) tap->observe(call, out);
  }
  return out;
}

}  // namespace vkflux
