#include "autograd/ops.h"
#include "autograd/run.h"
#include "autograd/tape.h"

namespace vkflux::op {
namespace {

constexpr uint32_t kLocal = 256;

// small[B, H, W, C] from or to [B, 2H, 2W, C].
Tensor resample(const Tensor& x, const Shape& result, int64_t small_width, bool backward) {
  const bool vec4 = x.dim(3) % 4 == 0;
  const int64_t per_unit = vec4 ? 4 : 1;
  Tensor y = Tensor::empty(x.device(), result);
  const uint64_t count = static_cast<uint64_t>(y.numel() / per_unit);
  const char* variant = vec4 ? (backward ? "vec4_bwd" : "vec4") : (backward ? "scalar_bwd" : "scalar");
  run(x.device(), {spec::UpsampleNearest2{.LOCAL = kLocal}, variant}, {x, y},
      args::UpsampleArgs{static_cast<uint32_t>(count), u32(small_width), u32(x.dim(3) / per_unit)},
      groups_1d(ceil_div(count, kLocal)), {0, 4.0 * static_cast<double>(x.numel() + y.numel())});
  return y;
}

}  // namespace

Tensor upsample_nearest2(const Tensor& input) {
  expect("upsample_nearest2", input.rank() == 4, "x must be [B, H, W, C]", {&input});
  const Tensor x = contiguous(input);
  Tensor y = resample(x, {x.dim(0), 2 * x.dim(1), 2 * x.dim(2), x.dim(3)}, x.dim(2), false);
  if (Tape* t = Tape::wants({&input})) {
    t->push("upsample_nearest2", {y}, [input, shape = x.shape(), y = y.id()](Grads& g) {
      g.add(input, resample(contiguous(g.of(y)), shape, shape[2], true));
    });
  }
  return y;
}

}  // namespace vkflux::op
