#include <algorithm>

#include "autograd/ops.h"
#include "autograd/ops/binding.h"
#include "autograd/ops/rows.h"
#include "autograd/run.h"
#include "autograd/tape.h"

namespace vkflux::op {
namespace {

/// a and b as rows of `cols` numbers, `stride` apart; b starts b_offset numbers into its binding.
struct Gated {
  int64_t rows, cols, stride, b_offset;
  bool gelu;
};

void launch_once(const Gated& k, const Tensor& a, const Tensor& b, const Tensor& dy, const Tensor& y,
                 const Tensor& db) {
  const ColumnShape s = wide_column_shape(a.device(), "gated", 1, k.rows, k.cols);
  const bool backward = dy.defined();
  const double n = static_cast<double>(k.rows) * static_cast<double>(k.cols);
  run(a.device(),
      {spec::Gated{.LOCAL = s.local, .VEC4 = s.vec4, .GELU = k.gelu, .BACKWARD = backward}, s.variant},
      {a, b, backward ? dy : a, y, backward ? db : y},
      args::GatedArgs{u32(k.rows), u32(k.cols), s.rows_per_group, u32(k.stride), u32(k.b_offset)}, s.groups,
      {(backward ? 20 : 8) * n, (backward ? 20 : 12) * n});
}

Tensor rows_of(const Tensor& x, int64_t first, int64_t rows, int64_t width) {
  return x.defined() ? x.with_strides({x.numel()}, {1}).slice(0, first * width, rows * width) : x;
}

/// As many rows at a time as every binding has room for.
void launch(const Gated& k, const Tensor& a, const Tensor& b, const Tensor& dy, const Tensor& y,
            const Tensor& db) {
  const int64_t most = max_binding_bytes(a.device().caps()) / 4 / std::max(k.stride, k.cols);
  const int64_t part = most >= k.rows ? k.rows : std::max<int64_t>(most / 64 * 64, 1);
  const int64_t width = dy.defined() ? k.stride : k.cols;  // of what is written
  for (int64_t first = 0; first < k.rows; first += part) {
    const int64_t n = std::min(part, k.rows - first);
    if (n == k.rows) return launch_once(k, a, b, dy, y, db);
    launch_once({n, k.cols, k.stride, k.b_offset, k.gelu}, rows_of(a, first, n, k.stride),
                rows_of(b, first, n, k.stride), rows_of(dy, first, n, k.cols), rows_of(y, first, n, width),
                rows_of(db, first, n, width));
  }
}

}  // namespace

Tensor swiglu(const Tensor& x_in) {
  expect("swiglu",
         x_in.defined() && x_in.dtype() == DType::f32 && x_in.rank() >= 1 && x_in.dim(-1) > 0 &&
             x_in.dim(-1) % 2 == 0,
         "needs f32 x[..., 2 C]", {&x_in});
  const Tensor x = dense(x_in);
  const int64_t cols = x.dim(-1) / 2;
  const Gated k{x.numel() / (2 * cols), cols, 2 * cols, cols, false};
  Shape shape = x.shape();
  shape[-1] = cols;
  const Tensor y = Tensor::empty(x.device(), shape);
  launch(k, x, x, {}, y, {});
  if (Tape* t = Tape::wants({&x_in})) {
    t->push("swiglu", {y}, [=, id = y.id()](Grads& g) {
      const Tensor dx = Tensor::empty(x.device(), x.shape());
      launch(k, x, x, dense(g.of(id)), dx, dx);
      g.add(x_in, dx);
    });
  }
  return y;
}

Tensor geglu(const Tensor& a_in, const Tensor& b_in) {
  expect("geglu",
         a_in.defined() && b_in.defined() && a_in.dtype() == DType::f32 && b_in.dtype() == DType::f32 &&
             a_in.rank() >= 1 && a_in.shape() == b_in.shape() && a_in.dim(-1) > 0,
         "needs f32 a and b of equal shape [..., C]", {&a_in, &b_in});
  const Tensor a = dense(a_in), b = dense(b_in);
  const int64_t cols = a.dim(-1);
  const Gated k{a.numel() / cols, cols, cols, 0, true};
  const Tensor y = Tensor::empty(a.device(), a.shape());
  launch(k, a, b, {}, y, {});
  if (Tape* t = Tape::wants({&a_in, &b_in})) {
    t->push("geglu", {y}, [=, id = y.id()](Grads& g) {
      const Tensor da = Tensor::empty(a.device(), a.shape()), db = Tensor::empty(a.device(), a.shape());
      launch(k, a, b, dense(g.of(id)), da, db);
      g.add(a_in, da);
      g.add(b_in, db);
    });
  }
  return y;
}

}  // namespace vkflux::op
