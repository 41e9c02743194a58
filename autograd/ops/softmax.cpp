#include "autograd/ops.h"
#include "autograd/ops/rows.h"
#include "autograd/run.h"
#include "autograd/tape.h"

namespace vkflux {
namespace {

template <class Spec>
void launch(std::initializer_list<TensorRef> bindings, const Tensor& like) {
  const int64_t cols = like.dim(-1), rows = like.numel() / cols;
  const RowShape s = wide_row_shape(like.device(), "softmax", cols);
  const double n = static_cast<double>(like.numel());
  run(like.device(), {Spec{.LANES = s.lanes, .SIMD = s.simd, .VEC4 = s.vec4}, s.variant}, bindings,
      args::SoftmaxArgs{u32(rows), u32(cols)}, groups_1d(static_cast<uint64_t>(rows)),
      {5 * n, 4 * n * static_cast<double>(bindings.size())});
}

}  // namespace

Tensor op::softmax(const Tensor& x) {
  expect("softmax", x.defined() && x.dtype() == DType::f32 && x.rank() >= 1 && x.dim(-1) > 0,
         "needs f32 x[..., C]", {&x});
  const Tensor y = Tensor::empty(x.device(), x.shape());
  launch<spec::Softmax>({dense(x), y}, y);
  if (Tape* t = Tape::wants({&x})) {
    t->push("softmax", {y}, [x, y, id = y.id()](Grads& g) {
      const Tensor dx = Tensor::empty(y.device(), y.shape());
      launch<spec::SoftmaxBwd>({y, dense(g.of(id)), dx}, y);
      g.add(x, dx);
    });
  }
  return y;
}

}  // namespace vkflux
