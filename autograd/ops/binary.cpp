#include <algorithm>

#include "autograd/ops.h"
#include "autograd/ops/flat.h"
#include "autograd/ops/strided.h"
#include "autograd/run.h"
#include "autograd/tape.h"

namespace vkflux::op {
namespace {

constexpr uint32_t kLocal = 256;
enum class Binary : uint32_t { add, sub, mul, div };

Tensor compute(const char* name, Binary kind, const Tensor& a, const Tensor& b) {
  expect(name, a.dtype() == DType::f32 && b.dtype() == DType::f32, "f32 tensors are needed", {&a, &b});
  const Tensor y = Tensor::empty(a.device(), broadcast_shape(name, a, b));
  if (y.numel() == 0) return y;
  const StridedLoop loop =
      strided_loop(y.shape(), {broadcast_strides(a, y.shape()), broadcast_strides(b, y.shape())});
  int64_t a_lead = 0, b_lead = 0;
  const Tensor u = a.covering(&a_lead), v = b.covering(&b_lead);
  const Inner a_mode = inner_mode(loop, 0, a_lead), b_mode = inner_mode(loop, 1, b_lead);
  const bool whole = whole_vectors(loop, {a_mode, b_mode});
  const int64_t unit = whole ? 4 : 1;
  args::BinaryArgs s{};
  s.a_offset = u32(a_lead);
  s.b_offset = u32(b_lead);
  set_divisors(s, divisors(loop, unit));
  set_strides(s.a_stride, loop.strides[0], unit);
  set_strides(s.b_stride, loop.strides[1], unit);
  const Tensor flat = y.view(Shape{y.numel()});
  const double read = static_cast<double>(a.bytes() + b.bytes()) / static_cast<double>(y.bytes());
  for_pieces(y.device(), y.numel(), 4, [&](int64_t first, int64_t count) {
    s.first = u32(first / unit);
    s.count = u32((count + unit - 1) / unit);
    const auto n = static_cast<double>(count);
    const FlatLaunch l = flat_launch(y.device(), "binary", count);
    run(y.device(),
        {spec::Binary{.LOCAL = l.local,
                      .OP = kind,
                      .RANK = loop.rank,
                      .A_MODE = a_mode,
                      .B_MODE = b_mode,
                      .WHOLE = whole},
         l.variant},
        {u, v, flat.slice(0, first, count)}, s, l.groups, {n, 4 * n * (1 + read)});
  });
  return y;
}

Tensor product_grad(const Tensor& dy, const Tensor& other, const Shape& shape) {
  return sum_to(compute("mul", Binary::mul, dy, other), shape);
}

}  // namespace

Tensor add(const Tensor& a, const Tensor& b) {
  const Tensor y = compute("add", Binary::add, a, b);
  if (Tape* tape = Tape::wants({&a, &b})) {
    tape->push("add", {y}, [a = a.key(), b = b.key(), id = y.id()](Grads& g) {
      const Tensor dy = g.of(id);
      if (g.wants(a)) g.add(a, sum_to(dy, a.shape()));
      if (g.wants(b)) g.add(b, sum_to(dy, b.shape()));
    });
  }
  return y;
}

Tensor sub(const Tensor& a, const Tensor& b) {
  const Tensor y = compute("sub", Binary::sub, a, b);
  if (Tape* tape = Tape::wants({&a, &b})) {
    tape->push("sub", {y}, [a = a.key(), b = b.key(), id = y.id()](Grads& g) {
      const Tensor dy = g.of(id);
      if (g.wants(a)) g.add(a, sum_to(dy, a.shape()));
      if (g.wants(b)) g.add(b, affine(sum_to(dy, b.shape()), -1));
    });
  }
  return y;
}

Tensor mul(const Tensor& a, const Tensor& b) {
  const Tensor y = compute("mul", Binary::mul, a, b);
  if (Tape* tape = Tape::wants({&a, &b})) {
    // Each side's values are read for the gradient of the other alone.
    const Tensor left = tape->active(b) ? a : a.key(), right = tape->active(a) ? b : b.key();
    tape->push("mul", {y}, [a = left, b = right, id = y.id()](Grads& g) {
      const Tensor dy = g.of(id);
      if (g.wants(a)) g.add(a, product_grad(dy, b, a.shape()));
      if (g.wants(b)) g.add(b, product_grad(dy, a, b.shape()));
    });
  }
  return y;
}

Tensor div(const Tensor& a, const Tensor& b) {
  const Tensor y = compute("div", Binary::div, a, b);
  if (Tape* tape = Tape::wants({&a, &b})) {
    const Tensor quotient = tape->active(b) ? y.alias() : Tensor();
    tape->push("div", {y}, [a = a.key(), b, quotient, id = y.id()](Grads& g) {
      const Tensor t = compute("div", Binary::div, g.of(id), b);
      if (g.wants(a)) g.add(a, sum_to(t, a.shape()));
      if (g.wants(b)) g.add(b, affine(product_grad(t, quotient, b.shape()), -1));
    });
  }
  return y;
}

Tensor affine(const Tensor& x, float scale, float shift) {
  expect("affine", x.dtype() == DType::f32, "an f32 tensor is needed", {&x});
  const Tensor source = x.is_bindable() ? x : contiguous(x);
  const Tensor y = Tensor::empty(x.device(), x.shape());
  const Tensor from = source.view(Shape{x.numel()}), to = y.view(Shape{x.numel()});
  for_pieces(x.device(), x.numel(), 4, [&](int64_t first, int64_t count) {
    const auto n = static_cast<double>(count);
    const FlatLaunch l = flat_launch(x.device(), "affine", count);
    run(x.device(), {spec::Affine{.LOCAL = l.local}, l.variant},
        {from.slice(0, first, count), to.slice(0, first, count)}, args::AffineArgs{u32(count), scale, shift},
        l.groups, {2 * n, 8 * n});
  });
  if (Tape* tape = Tape::wants({&x})) {
    tape->push("affine", {y}, [x = x.key(), id = y.id(), scale](Grads& g) {
      if (g.wants(x)) g.add(x, affine(g.of(id), scale));
    });
  }
  return y;
}

void accumulate(const Tensor& dst, const Tensor& x) {
  expect("accumulate", dst.shape() == x.shape() && dst.dtype() == DType::f32 && x.dtype() == DType::f32,
         "equal shapes of f32 are needed", {&dst, &x});
  if (dst.numel() == 0) return;
  const Tensor source = contiguous(x).view(Shape{x.numel()});
  args::AccumulateArgs a{};
  if (dst.is_bindable()) {
    const Tensor flat = dst.view(Shape{dst.numel()});
    for_pieces(dst.device(), dst.numel(), 4, [&](int64_t first, int64_t count) {
      a.count = u32(count);
      const Tensor piece = flat.slice(0, first, count);
      const FlatLaunch l = flat_launch(dst.device(), "accumulate", count);
      run(dst.device(), {spec::Accumulate{.LOCAL = l.local, .RANK = 1}, l.variant},
          {source.slice(0, first, count), piece, piece}, a, l.groups,
          {static_cast<double>(count), 12.0 * static_cast<double>(count)});
    });
    return;
  }
  int64_t lead = 0;
  const Tensor target = dst.covering(&lead);
  const StridedLoop loop = strided_loop(dst.shape(), {dst.strides()});
  const bool rows = inner_mode(loop, 0, lead) == Inner::vector && loop.shape[0] % 4 == 0;
  const int64_t unit = rows ? 4 : 1;
  a.count = u32(dst.numel());
  a.dst_offset = u32(lead);
  set_divisors(a, divisors(loop, unit));
  set_strides(a.dst_stride, loop.strides[0], unit);
  const spec::Accumulate constants{.LOCAL = kLocal, .RANK = loop.rank};
  const auto n = static_cast<double>(dst.numel());
  const auto lanes = static_cast<uint64_t>(dst.numel() / unit);
  if (rows) {
    run(dst.device(), {constants, "row"}, {source, target, target}, a, groups_1d(ceil_div(lanes, kLocal)),
        {n, 12 * n});
  } else {
    run(dst.device(), {constants, "element"}, {source, target}, a, groups_1d(ceil_div(lanes, kLocal)),
        {n, 12 * n});
  }
}

}  // namespace vkflux::op
