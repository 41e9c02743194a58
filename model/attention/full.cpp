#include "autograd/ops.h"
#include "model/attention/attention.h"

namespace vkflux {

Tensor FullAttention::forward(const AttentionCall& call) {
  op::AttentionOptions options;
  options.key_mask = call.tokens.key_mask;
  options.f16 = call.f16;
  return op::attention(call.q, call.k, call.v, options);
}

Cost FullAttention::cost(const AttentionShape& s) const {
  const double rows = static_cast<double>(s.batch * s.heads), n = static_cast<double>(s.text + s.image),
               keys = n + static_cast<double>(s.kept), d = static_cast<double>(s.head_dim);
  Cost cost{};
  cost.flops = static_cast<decltype(cost.flops)>(4 * rows * n * keys * d);
  cost.bytes = static_cast<decltype(cost.bytes)>(2 * rows * (n + keys) * d * sizeof(float));
  return cost;
}

}  // namespace vkflux
