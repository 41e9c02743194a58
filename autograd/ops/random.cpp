#include "autograd/ops.h"
#include "autograd/run.h"

namespace vkflux::op {
namespace {

constexpr uint32_t kLocal = 256;

Tensor draw(Device& device, const Shape& shape, uint64_t seed, uint64_t stream, bool normal) {
  Tensor y = Tensor::empty(device, shape);
  const uint64_t n4 = ceil_div(static_cast<uint64_t>(shape.numel()), 4);
  const double n = static_cast<double>(shape.numel());
  run(device, {"random", "f32", {kLocal, normal ? 1u : 0u}}, {y},
      args::RandomArgs{static_cast<uint32_t>(n4), static_cast<uint32_t>(seed),
                       static_cast<uint32_t>(seed >> 32), static_cast<uint32_t>(stream),
                       static_cast<uint32_t>(stream >> 32)},
      groups_1d(ceil_div(n4, kLocal)), {30 * n, 4 * n});
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
