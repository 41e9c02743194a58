#include "autograd/ops.h"
#include "autograd/ops/modulate.h"
#include "autograd/ops/row_norm.h"
#include "autograd/run.h"
#include "autograd/tape.h"

namespace vkflux::op {
namespace {

void expect_modulation(const char* op, const Tensor& x, const Tensor& shift, const Tensor& scale) {
  expect(op,
         x.defined() && x.rank() == 3 && x.dtype() == DType::f32 && shift.defined() && scale.defined() &&
             shift.dtype() == DType::f32 && scale.dtype() == DType::f32 &&
             shift.shape() == Shape{x.dim(0), x.dim(2)} && scale.shape() == shift.shape(),
         "needs f32 x[B, N, C], shift[B, C] and scale[B, C]", {&x, &shift, &scale});
}

}  // namespace

Tensor layer_norm(const Tensor& x, const Tensor& weight, const Tensor& bias, float eps) {
  expect("layer_norm", (!weight.defined() || weight.rank() == 1) && (!bias.defined() || bias.rank() == 1),
         "weight and bias have one dimension", {&x, &weight, &bias});
  return row_norm({"layer_norm", true, false, eps}, x, weight, bias);
}

Tensor layer_norm_modulate(const Tensor& x, const Tensor& shift, const Tensor& scale, float eps) {
  expect_modulation("layer_norm_modulate", x, shift, scale);
  return row_norm({"layer_norm", true, true, eps}, x, scale, shift);
}

Tensor modulate(const Tensor& x_in, const Tensor& shift, const Tensor& scale) {
  expect_modulation("modulate", x_in, shift, scale);
  const Tensor x = dense(x_in);
  const RowView s = row_view(scale);
  const Tensor y = scale_columns(x, s, true, row_view(shift), {});
  if (Tape* t = Tape::wants({&x_in, &shift, &scale})) {
    t->push("modulate", {y}, [=, id = y.id()](Grads& g) {
      const Tensor dy = dense(g.of(id));
      if (g.wants(x_in)) g.add(x_in, scale_columns(dy, s, true, {}, {}));
      const ColumnSums sums =
          column_sums(dy, x, {}, x.dim(0), x.dim(1), x.dim(2), g.wants(shift), g.wants(scale));
      if (sums.plain.defined()) g.add(shift, sums.plain);
      if (sums.weighted.defined()) g.add(scale, sums.weighted);
    });
  }
  return y;
}

}  // namespace vkflux::op
