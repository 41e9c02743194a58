// What surrounds the matrix products of a normalised kernel regression: values with a column of ones, and the
// quotient of the two sums.
#include <algorithm>

#include "autograd/ops.h"
#include "autograd/ops/rows.h"
#include "autograd/run.h"
#include "autograd/tape.h"

namespace vkflux {
namespace {

constexpr uint32_t kLocal = 256;

// Room for the ones behind `cols` values, padded for the matrix products.
int64_t padded_width(int64_t cols) {
  return (cols + 4) / 4 * 4;
}

struct ValueRows {
  int64_t heads, keys, start, length, cols;
};

Tensor values_kernel(const Tensor& x, const Tensor& mask, const ValueRows& r, const Shape& shape,
                     bool backward) {
  const Tensor out = Tensor::empty(x.device(), shape);
  const bool vec4 = r.cols % 4 == 0;
  const int64_t units = backward && !vec4 ? out.numel() : out.numel() / 4;
  const double n = static_cast<double>(out.numel());
  run(x.device(),
      spec::KernelValues{.LOCAL = kLocal, .VEC4 = vec4, .MASKED = mask.defined(), .BACKWARD = backward},
      {x, mask.defined() ? mask : x, out},
      args::KernelValuesArgs{u32(units), u32(r.heads), u32(r.keys), u32(r.start), u32(r.length), u32(r.cols),
                             u32(padded_width(r.cols))},
      groups_1d(ceil_div(static_cast<uint64_t>(units), kLocal)), {0, 8 * n});
  return out;
}

}  // namespace

Tensor op::kernel_values(const Tensor& v_in, const Tensor& key_mask, int64_t start, int64_t length) {
  expect("kernel_values", v_in.defined() && v_in.dtype() == DType::f32 && v_in.rank() == 4 && v_in.dim(3) > 0,
         "needs f32 v[B, H, N, D]", {&v_in});
  expect("kernel_values",
         !key_mask.defined() ||
             (key_mask.dtype() == DType::u8 && key_mask.shape() == Shape{v_in.dim(0), v_in.dim(2)}),
         "key_mask must be u8 [B, N]", {&key_mask, &v_in});
  expect("kernel_values", start >= 0 && length >= 0 && start + length <= v_in.dim(2), "keys out of range",
         {&v_in});
  const ValueRows r{v_in.dim(1), v_in.dim(2), start, length, v_in.dim(3)};
  const Tensor mask = key_mask.defined() ? dense(key_mask) : Tensor();
  const Tensor y =
      values_kernel(dense(v_in), mask, r, {v_in.dim(0), v_in.dim(1), length, padded_width(r.cols)}, false);
  if (Tape* t = Tape::wants({&v_in})) {
    t->push("kernel_values", {y}, [v = v_in.key(), mask, r, id = y.id()](Grads& g) {
      if (!g.wants(v)) return;
      const Shape part{v.dim(0), v.dim(1), r.length, r.cols};
      g.add_slice(v, 2, r.start, values_kernel(dense(g.of(id)), mask, r, part, true));
    });
  }
  return y;
}

op::KernelQuotient op::kernel_quotient(const Tensor& x_in, int64_t cols, float eps) {
  expect("kernel_quotient",
         x_in.defined() && x_in.dtype() == DType::f32 && x_in.rank() >= 1 && cols > 0 &&
             x_in.dim(-1) == padded_width(cols),
         "needs f32 sums of kernel_values", {&x_in});
  const Tensor x = dense(x_in);
  Device& device = x.device();
  const int64_t width = x.dim(-1), rows = x.numel() / width;
  Shape shape = x.shape();
  shape[-1] = cols;
  const Tensor y = Tensor::empty(device, shape);
  const Tensor den = Tensor::empty(device, Shape(std::span<const int64_t>(shape.begin(), shape.end() - 1)));
  const RowShape s = row_shape(device, "kernel_quotient", cols);
  const args::KernelQuotientArgs a{u32(rows), u32(cols), u32(width), eps};
  const double n = static_cast<double>(y.numel());
  run(device, spec::KernelQuotient{.LANES = s.lanes, .SIMD = s.simd, .VEC4 = s.vec4}, {x, y, den}, a,
      groups_1d(static_cast<uint64_t>(rows)), {n, 8 * n});
  if (Tape* t = Tape::wants({&x_in})) {
    t->push("kernel_quotient", {y}, [x = x_in.key(), y = y.alias(), den, s, a, n, id = y.id()](Grads& g) {
      if (!g.wants(x)) return;
      const Tensor dx = Tensor::empty(y.device(), x.shape());
      run(y.device(), spec::KernelQuotientBwd{.LANES = s.lanes, .SIMD = s.simd, .VEC4 = s.vec4},
          {y, den, dense(g.of(id)), dx}, a, groups_1d(a.rows), {3 * n, 12 * n});
      g.add(x, dx);
    });
  }
  return {y, den};
}

Tensor op::min_all(const Tensor& x_in) {
  expect("min_all", x_in.defined() && x_in.dtype() == DType::f32 && x_in.numel() > 0, "needs f32 numbers",
         {&x_in});
  constexpr uint32_t kGroup = 64, kPerResult = 64;
  Tensor x = dense(x_in);
  do {
    const auto n = static_cast<uint64_t>(x.numel()), results = ceil_div(n, kPerResult);
    const Tensor y = Tensor::empty(x.device(), {static_cast<int64_t>(results)});
    run(x.device(), spec::Minimum{.LOCAL = kGroup}, {x, y},
        args::MinimumArgs{static_cast<uint32_t>(n), static_cast<uint32_t>(results), kPerResult},
        groups_1d(ceil_div(results, kGroup)), {static_cast<double>(n), 4.0 * static_cast<double>(n)});
    x = y;
  } while (x.numel() > 1);
  return x.view({1});
}

}  // namespace vkflux
