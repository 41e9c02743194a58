#include "autograd/ops/unary.h"

#include "autograd/ops.h"
#include "autograd/run.h"
#include "autograd/tape.h"

namespace vkflux::op {
namespace {

constexpr uint32_t kLocal = 256;

Tensor apply(const Tensor& x, const Tensor& g, uint32_t kind, float p) {
  const bool backward = g.defined();
  Tensor y = Tensor::empty(x.device(), x.shape());
  const uint64_t n4 = ceil_div(static_cast<uint64_t>(x.numel()), 4);
  const double n = static_cast<double>(x.numel());
  run(x.device(), {"unary", "f32", {kLocal, kind, backward ? 1u : 0u}}, {x, backward ? g : x, y},
      args::UnaryArgs{static_cast<uint32_t>(n4), p}, groups_1d(ceil_div(n4, kLocal)),
      {10 * n, (backward ? 12 : 8) * n});
  return y;
}

Tensor unary_kind(const Tensor& input, uint32_t kind, float p) {
  expect("unary", input.dtype() == DType::f32, "an f32 tensor is needed", {&input});
  const Tensor x = contiguous(input);
  Tensor y = apply(x, {}, kind, p);
  if (Tape* t = Tape::wants({&input})) {
    t->push("unary", {y}, [input, x, kind, p, y = y.id()](Grads& g) {
      g.add(input, apply(x, contiguous(g.of(y)), kind, p));
    });
  }
  return y;
}

}  // namespace

Tensor unary(const Tensor& x, Unary f) {
  return unary_kind(x, static_cast<uint32_t>(f), 0);
}
Tensor unary(const Tensor& x, ParametricUnary f, float p) {
  return unary_kind(x, static_cast<uint32_t>(f), p);
}

}  // namespace vkflux::op
