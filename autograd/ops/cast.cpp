#include "autograd/ops.h"
#include "autograd/ops/strided.h"
#include "autograd/run.h"
#include "autograd/tape.h"

namespace vkflux::op {
namespace {

constexpr uint32_t kLocal = 256;

bool is_half(DType t) {
  return t == DType::f16 || t == DType::bf16;
}

void convert(const Tensor& to, const Tensor& from) {
  const bool down = from.dtype() == DType::f32;
  const bool bf16 = (down ? to : from).dtype() == DType::bf16;
  const Tensor x = from.view(Shape{from.numel()}), y = to.view(Shape{to.numel()});
  for_pieces(from.device(), from.numel(), 4, [&](int64_t first, int64_t count) {
    const Tensor in = x.slice(0, first, count), out = y.slice(0, first, count);
    const args::CastArgs args{u32(count)};
    const Groups groups = groups_1d(ceil_div(static_cast<uint64_t>(count), 8 * kLocal));
    const Cost cost{static_cast<double>(count), 6.0 * static_cast<double>(count)};
    const spec::Cast kernel{.LOCAL = kLocal, .BF16 = bf16};
    if (down) {
      run(from.device(), {kernel, "down"}, {in, out, saturation_place(from.device())}, args, groups, cost);
    } else {
      run(from.device(), {kernel, "up"}, {in, out}, args, groups, cost);
    }
  });
}

}  // namespace

Tensor cast(const Tensor& x, DType dtype) {
  const bool floats =
      (x.dtype() == DType::f32 || is_half(x.dtype())) && (dtype == DType::f32 || is_half(dtype));
  expect("cast", floats, "only f32, f16 and bf16 are converted", {&x});
  const Tensor source = contiguous(x);
  const Tensor y = Tensor::empty(x.device(), x.shape(), dtype);
  if (x.dtype() == dtype) {
    if (x.numel()) x.device().stream().copy(y.range(), source.range());
  } else if (x.dtype() == DType::f32 || dtype == DType::f32) {
    convert(y, source);
  } else {
    const Tensor wide = Tensor::empty(x.device(), x.shape());
    convert(wide, source);
    convert(y, wide);
  }
  if (x.dtype() == DType::f32 && dtype == DType::f32) {
    if (Tape* tape = Tape::wants({&x})) {
      tape->push("cast", {y}, [x = x.key(), id = y.id()](Grads& g) { g.add(x, g.of(id)); });
    }
  }
  return y;
}

}  // namespace vkflux::op
