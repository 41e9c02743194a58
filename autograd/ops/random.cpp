#include "autograd/ops.h"
#include "autograd/ops/strided.h"

namespace vkflux::op {
namespace {

constexpr uint32_t kLocal = 256;

Tensor draw(Device& device, const Shape& shape, uint64_t seed, uint64_t stream, bool normal) {
  Tensor y = Tensor::empty(device, shape);
  const Tensor flat = y.view({y.numel()});
  for_pieces(device, y.numel(), 4, [&](int64_t first, int64_t count) {
    const uint64_t n4 = ceil_div(static_cast<uint64_t>(count), 4);
    const auto n = static_cast<double>(count);
    run(device, spec::Random{.LOCAL = kLocal, .NORMAL = normal}, {flat.slice(0, first, count)},
        args::RandomArgs{u32(first / 4), static_cast<uint32_t>(n4), static_cast<uint32_t>(seed),
                         static_cast<uint32_t>(seed >> 32), static_cast<uint32_t>(stream),
                         static_cast<uint32_t>(stream >> 32)},
        groups_1d(ceil_div(n4, kLocal)), {30 * n, 4 * n});
  });
  return y;
}

}  // namespace

Tensor uniform(Device& device, const Shape& shape, uint64_t seed, uint64_t stream) {
  return draw(device, shape, seed, stream, false);
}
Tensor normal(Device& device, const Shape& shape, uint64_t seed, uint64_t stream) {
  return draw(device, shape, seed, stream, true);
}

}  // namespace vkflux::op
