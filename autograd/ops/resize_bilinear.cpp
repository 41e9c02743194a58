#include "autograd/ops.h"
#include "autograd/run.h"
#include "autograd/tape.h"

namespace vkflux::op {
namespace {

constexpr uint32_t kLocal = 256;
constexpr int64_t kMaxSize = 16384;  // of a side: the kernel's positions are 32-bit fractions

// From x (in forward the input, in backward the gradient of the output) to `result`.
Tensor resample(const Tensor& x, const Shape& result, const Shape& input, const Shape& output,
                bool backward) {
  const int64_t channels = input[3], per_unit = channels % 4 == 0 ? 4 : 1;
  const Tensor y = Tensor::empty(x.device(), result);
  if (x.numel() == 0) y.fill_zero();
  if (x.numel() == 0 || y.numel() == 0) return y;
  const int64_t count = y.numel() / per_unit;
  const char* variant =
      per_unit == 4 ? (backward ? "vec4_bwd" : "vec4") : (backward ? "scalar_bwd" : "scalar");
  const args::ResizeArgs a{u32(count),    u32(channels / per_unit), u32(input[1]),
                           u32(input[2]), u32(output[1]),           u32(output[2])};
  run(x.device(), {spec::ResizeBilinear{.LOCAL = kLocal}, variant}, {x, y}, a,
      groups_1d(ceil_div(static_cast<uint64_t>(count), kLocal)),
      {0, 4.0 * static_cast<double>(x.numel() + y.numel())});
  return y;
}

}  // namespace

Tensor resize_bilinear(const Tensor& input, int64_t height, int64_t width) {
  const char* name = "resize_bilinear";
  expect(name, input.rank() == 4 && input.dtype() == DType::f32, "x must be f32 [B, H, W, C]", {&input});
  const int64_t h = input.dim(1), w = input.dim(2);
  expect(name, h >= 1 && w >= 1 && h <= kMaxSize && w <= kMaxSize, "sides must be 1 to 16384 pixels",
         {&input});
  expect(name, height >= 1 && width >= 1 && height <= kMaxSize && width <= kMaxSize,
         "the size asked for must be 1 to 16384 pixels a side", {&input});
  Tape* tape = Tape::wants({&input});
  const auto pause = Tape::pause();
  const Shape from = input.shape(), to{from[0], height, width, from[3]};
  const Tensor y = resample(contiguous(input), to, from, to, false);
  if (!tape) return y;
  tape->push(name, {y}, [input, from, to, id = y.id()](Grads& g) {
    if (g.wants(input)) g.add(input, resample(contiguous(g.of(id)), from, from, to, true));
  });
  return y;
}

}  // namespace vkflux::op
