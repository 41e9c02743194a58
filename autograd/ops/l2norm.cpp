#include "autograd/ops.h"
#include "autograd/ops/rows.h"
#include "autograd/run.h"
#include "autograd/tape.h"

namespace vkflux {
namespace {

Tensor launch(const Tensor& x, const Tensor& dy, float eps) {
  const Tensor out = Tensor::empty(x.device(), x.shape());
  const int64_t cols = x.dim(-1), rows = x.numel() / cols;
  const RowShape s = row_shape(x.device(), "l2norm", cols);
  const double n = static_cast<double>(x.numel());
  run(x.device(), spec::L2norm{.LANES = s.lanes, .SIMD = s.simd, .VEC4 = s.vec4, .BACKWARD = dy.defined()},
      {x, dy.defined() ? dy : x, out}, args::L2NormArgs{u32(rows), u32(cols), eps},
      groups_1d(static_cast<uint64_t>(rows)), {(dy.defined() ? 7 : 3) * n, (dy.defined() ? 12 : 8) * n});
  return out;
}

}  // namespace

Tensor op::l2norm(const Tensor& x_in, float eps) {
  expect("l2norm", x_in.defined() && x_in.dtype() == DType::f32 && x_in.rank() >= 1 && x_in.dim(-1) > 0,
         "needs f32 x[..., C]", {&x_in});
  const Tensor x = dense(x_in);
  const Tensor y = launch(x, {}, eps);
  if (Tape* t = Tape::wants({&x_in})) {
    t->push("l2norm", {y}, [=, id = y.id()](Grads& g) { g.add(x_in, launch(x, dense(g.of(id)), eps)); });
  }
  return y;
}

}  // namespace vkflux
