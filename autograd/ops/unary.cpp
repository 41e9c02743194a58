#include "autograd/ops/unary.h"

#include "autograd/ops.h"
#include "autograd/ops/flat.h"
#include "autograd/ops/strided.h"
#include "autograd/run.h"
#include "autograd/tape.h"

namespace vkflux::op {
namespace {

Tensor apply(const Tensor& x, const Tensor& g, uint32_t kind, float p) {
  const bool backward = g.defined();
  const Tensor y = Tensor::empty(x.device(), x.shape());
  const Shape all{x.numel()};
  const Tensor from = x.view(all), grad = backward ? g.view(all) : from, to = y.view(all);
  for_pieces(x.device(), x.numel(), 4, [&](int64_t first, int64_t count) {
    const uint64_t n4 = ceil_div(static_cast<uint64_t>(count), 4);
    const auto n = static_cast<double>(count);
    const FlatLaunch l = flat_launch(x.device(), "unary", count);
    run(x.device(), {spec::Unary{.LOCAL = l.local, .KIND = kind, .BACKWARD = backward}, l.variant},
        {from.slice(0, first, count), grad.slice(0, first, count), to.slice(0, first, count)},
        args::UnaryArgs{static_cast<uint32_t>(n4), p}, l.groups, {10 * n, (backward ? 12 : 8) * n});
  });
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
