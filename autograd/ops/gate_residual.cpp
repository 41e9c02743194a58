#include "autograd/ops.h"
#include "autograd/ops/modulate.h"
#include "autograd/run.h"
#include "autograd/tape.h"

namespace vkflux {

Tensor scale_columns(const Tensor& x, const RowView& scale, bool add_one, const RowView& shift,
                     const Tensor& residual, const Tensor& out) {
  const Tensor y = out.defined() ? out : Tensor::empty(x.device(), x.shape());
  const ColumnShape s = wide_column_shape(x.device(), "scale_columns", x.dim(0), x.dim(1), x.dim(2));
  const double n = static_cast<double>(x.numel());
  run(x.device(),
      {spec::ScaleColumns{.LOCAL = s.local,
                          .VEC4 = s.vec4,
                          .ADD_ONE = add_one,
                          .HAS_SHIFT = shift.tensor.defined(),
                          .HAS_RESIDUAL = residual.defined()},
       s.variant},
      {x, scale.tensor, shift.tensor.defined() ? shift.tensor : x, residual.defined() ? residual : x, y},
      args::ScaleColumnsArgs{u32(x.dim(1)), u32(x.dim(2)), s.rows_per_group, scale.stride, shift.stride},
      s.groups, {2 * n, (residual.defined() ? 12 : 8) * n});
  return y;
}

Tensor op::gate_residual(const Tensor& x_in, const Tensor& gate_in, const Tensor& y_in, const Tensor& out) {
  expect("gate_residual",
         x_in.defined() && gate_in.defined() && y_in.defined() && x_in.rank() == 3 &&
             x_in.dtype() == DType::f32 && gate_in.dtype() == DType::f32 && y_in.dtype() == DType::f32 &&
             y_in.shape() == x_in.shape() && gate_in.shape() == Shape{x_in.dim(0), x_in.dim(2)},
         "needs f32 x[B, N, C], gate[B, C] and y[B, N, C]", {&x_in, &gate_in, &y_in});
  const Tensor y = dense(y_in);
  const RowView gate = row_view(gate_in);
  expect("gate_residual",
         !out.defined() || (out.shape() == x_in.shape() && out.dtype() == DType::f32 && out.is_bindable() &&
                            !Tape::wants({&x_in, &gate_in, &y_in})),
         "out must be a dense f32 tensor of x's shape, and can't be taped", {&x_in, &out});
  const Tensor z = scale_columns(y, gate, false, {}, dense(x_in), out);
  if (Tape* t = Tape::wants({&x_in, &gate_in, &y_in})) {
    t->push("gate_residual", {z}, [=, id = z.id()](Grads& g) {
      const Tensor dz = dense(g.of(id));
      g.add(x_in, dz);
      if (g.wants(y_in)) g.add(y_in, scale_columns(dz, gate, false, {}, {}));
      if (g.wants(gate_in)) {
        g.add(gate_in, column_sums(dz, y, {}, y.dim(0), y.dim(1), y.dim(2), false, true).weighted);
      }
    });
  }
  return z;
}

}  // namespace vkflux
