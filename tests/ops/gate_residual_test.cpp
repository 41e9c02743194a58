#include <gtest/gtest.h>

#include "autograd/ops.h"
#include "tests/harness/gpu.h"
#include "tests/harness/op_check.h"
#include "vk/error.h"

namespace vkflux::test {
namespace {

Host reference(const Host& x, const Host& gate, const Host& y) {
  Host z = x;
  const size_t c = static_cast<size_t>(x.shape[2]), nc = static_cast<size_t>(x.shape[1]) * c;
  for (size_t i = 0; i < z.data.size(); ++i) z[i] += gate[i / nc * c + i % c] * y[i];
  return z;
}

TEST(GateResidual, OverAwkwardShapes) {
  for (const Shape& shape : {Shape{2, 5, 64}, Shape{3, 37, 7}, Shape{1, 1, 1}, Shape{2, 200, 4}}) {
    check_op(
        "gate_residual " + shape.str(), {random(shape, 1), random({shape[0], shape[2]}, 2), random(shape, 3)},
        [](const auto& t) { return std::vector{op::gate_residual(t[0], t[1], t[2])}; },
        [](const auto& h) { return std::vector{reference(h[0], h[1], h[2])}; });
  }
}

TEST(GateResidual, ReadsAStridedGate) {
  const Host x = random({2, 3, 64}, 1), y = random({2, 3, 64}, 2), all = random({2, 192}, 3);
  const Tensor z = op::gate_residual(upload(x), upload(all).slice(1, 64, 64), upload(y));
  Host gate{{2, 64}, {}, false};
  for (size_t i = 0; i < 128; ++i) gate.data.push_back(all[i / 64 * 192 + 64 + i % 64]);
  EXPECT_LE(error_of(z.to_host(), reference(x, gate, y).data), 1e-6);
}

TEST(GateResidual, RejectsOtherShapes) {
  const Tensor x = Tensor::zeros(device(), {2, 3, 8});
  EXPECT_THROW(op::gate_residual(x, Tensor::zeros(device(), {8}), x), Error);
  EXPECT_THROW(op::gate_residual(x, Tensor::zeros(device(), {2, 8}), Tensor::zeros(device(), {2, 4, 8})),
               Error);
}

}  // namespace
}  // namespace vkflux::test
