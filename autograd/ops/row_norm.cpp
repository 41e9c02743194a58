#include "autograd/ops/row_norm.h"

#include <algorithm>
#include <string_view>

#include "autograd/ops/rows.h"
#include "autograd/run.h"
#include "autograd/tape.h"

namespace vkflux {
namespace {

struct Layout {
  int64_t rows, cols, batch;  // batch: number of weight vectors
  uint32_t rows_per_vector() const { return u32(batch > 0 ? rows / batch : rows); }
  double numel() const { return static_cast<double>(rows) * static_cast<double>(cols); }
};

bool fits(const Tensor& vector, const Tensor& x) {
  if (!vector.defined()) return true;
  if (vector.dtype() != DType::f32 || vector.dim(-1) != x.dim(-1)) return false;
  return vector.rank() == 1 || (vector.rank() == 2 && x.rank() >= 2 && vector.dim(0) == x.dim(0));
}

RowView vector_view(const Tensor& v) {
  if (!v.defined()) return {};
  if (v.rank() == 2) return row_view(v);
  return {dense(v), 0};
}

Tensor backward_x(const RowNorm& norm, const Layout& l, const Tensor& x, const RowView& w,
                  const Tensor& stats, const Tensor& dy) {
  const Tensor dx = Tensor::empty(x.device(), x.shape());
  const RowShape s = wide_row_shape(x.device(), norm.op, l.cols);
  const uint32_t has_weight = w.tensor.defined() ? 1 : 0;
  run(x.device(),
      {spec::RowNormBwd{.LANES = s.lanes,
                        .SIMD = s.simd,
                        .VEC4 = s.vec4,
                        .CENTER = norm.center,
                        .HAS_WEIGHT = has_weight,
                        .ADD_ONE = norm.add_one},
       s.variant},
      {x, has_weight ? w.tensor : x, dy, stats, dx},
      args::RowNormBwdArgs{u32(l.rows), u32(l.cols), l.rows_per_vector(), w.stride},
      groups_1d(static_cast<uint64_t>(l.rows)), {12 * l.numel(), 12 * l.numel()});
  return dx;
}

}  // namespace

Tensor row_norm(const RowNorm& norm, const Tensor& x_in, const Tensor& weight, const Tensor& bias) {
  expect(norm.op,
         x_in.defined() && x_in.dtype() == DType::f32 && x_in.rank() >= 1 && x_in.dim(-1) > 0 &&
             fits(weight, x_in) && fits(bias, x_in),
         "needs f32 x[..., C] and f32 vectors [C] or [B, C]", {&x_in, &weight, &bias});
  const Tensor x = dense(x_in);
  const Tensor& vector = weight.defined() ? weight : bias;
  const Layout l{x.numel() / x.dim(-1), x.dim(-1),
                 vector.defined() && vector.rank() == 2 ? vector.dim(0) : 1};
  const RowView w = vector_view(weight), b = vector_view(bias);
  const Tensor y = Tensor::empty(x.device(), x.shape());
  const Tensor stats = Tensor::empty(x.device(), {l.rows, 2});
  constexpr int64_t kWideRows = 4;  // of a workgroup of the wide kernel, with the same vectors
  const bool wide = l.batch == 1 || l.rows_per_vector() % kWideRows == 0;
  const RowShape s =
      wide ? wide_row_shape(x.device(), norm.op, l.cols) : row_shape(x.device(), norm.op, l.cols);
  const auto groups = static_cast<uint64_t>(
      s.variant == std::string_view("wide") ? (l.rows + kWideRows - 1) / kWideRows : l.rows);
  run(x.device(),
      {spec::RowNorm{.LANES = s.lanes,
                     .SIMD = s.simd,
                     .VEC4 = s.vec4,
                     .CENTER = norm.center,
                     .HAS_WEIGHT = weight.defined(),
                     .HAS_BIAS = bias.defined(),
                     .ADD_ONE = norm.add_one},
       s.variant},
      {x, weight.defined() ? w.tensor : x, bias.defined() ? b.tensor : x, y, stats},
      args::RowNormArgs{u32(l.rows), u32(l.cols), l.rows_per_vector(), w.stride, b.stride, norm.eps},
      groups_1d(groups), {8 * l.numel(), 8 * l.numel()});
  if (Tape* t = Tape::wants({&x_in, &weight, &bias})) {
    t->push(norm.op, {y}, [=, id = y.id()](Grads& g) {
      const Tensor dy = dense(g.of(id));
      if (g.wants(x_in)) g.add(x_in, backward_x(norm, l, x, w, stats, dy));
      const bool want_w = weight.defined() && g.wants(weight), want_b = bias.defined() && g.wants(bias);
      const ColumnSums sums =
          column_sums(dy, x, stats, l.batch, l.rows / std::max<int64_t>(l.batch, 1), l.cols, want_b, want_w);
      if (want_w) g.add(weight, sums.weighted.view(weight.shape()));
      if (want_b) g.add(bias, sums.plain.view(bias.shape()));
    });
  }
  return y;
}

}  // namespace vkflux
