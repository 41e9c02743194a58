#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "autograd/ops.h"
#include "tests/harness/gpu.h"
#include "tests/harness/op_check.h"
#include "vk/error.h"

namespace vkflux::test {
namespace {

struct Tap {
  int64_t low, high;
  double high_weight;
};

Tap tap(int64_t o, int64_t in, int64_t out) {
  const double at = std::max(
      (static_cast<double>(o) + 0.5) * static_cast<double>(in) / static_cast<double>(out) - 0.5, 0.0);
  const auto low = std::min(static_cast<int64_t>(at), in - 1);
  return {low, std::min(low + 1, in - 1), at - static_cast<double>(low)};
}

Host reference(const Host& x, int64_t height, int64_t width) {
  const int64_t h = x.shape[1], w = x.shape[2], c = x.shape[3];
  Host y{{x.shape[0], height, width, c}, {}, true};
  for (int64_t b = 0; b < x.shape[0]; ++b)
    for (int64_t oy = 0; oy < height; ++oy)
      for (int64_t ox = 0; ox < width; ++ox)
        for (int64_t k = 0; k < c; ++k) {
          const Tap v = tap(oy, h, height), u = tap(ox, w, width);
          const auto at = [&](int64_t r, int64_t s) {
            return x[static_cast<size_t>(((b * h + r) * w + s) * c + k)];
          };
          const double top = at(v.low, u.low) * (1 - u.high_weight) + at(v.low, u.high) * u.high_weight;
          const double bottom = at(v.high, u.low) * (1 - u.high_weight) + at(v.high, u.high) * u.high_weight;
          y.data.push_back(top * (1 - v.high_weight) + bottom * v.high_weight);
        }
  return y;
}

void check(const Shape& shape, int64_t height, int64_t width) {
  CheckOptions options;
  options.max_probes = 1000;
  check_op(
      fmt::format("resize_bilinear {} to {} x {}", shape.str(), height, width), {random(shape, 5)},
      [&](const std::vector<Tensor>& t) -> std::vector<Tensor> {
        return {op::resize_bilinear(t[0], height, width)};
      },
      [&](const std::vector<Host>& in) -> std::vector<Host> { return {reference(in[0], height, width)}; },
      options);
}

TEST(ResizeBilinear, UpAndDown) {
  check({2, 4, 6, 4}, 8, 12);
  check({1, 8, 8, 1}, 3, 3);
  check({1, 8, 8, 3}, 4, 4);
  check({1, 7, 5, 3}, 11, 13);
  check({1, 13, 3, 8}, 2, 7);
  check({1, 1, 1, 5}, 4, 3);
  check({1, 5, 4, 2}, 1, 1);
  check({1, 2, 3, 4}, 17, 3);
  check({1, 17, 3, 4}, 2, 3);
}

TEST(ResizeBilinear, SameSizeIsACopy) {
  const Host x = random({2, 5, 3, 3}, 1);
  EXPECT_EQ(error_of(op::resize_bilinear(upload(x), 5, 3).to_host(), x.data), 0);
}

TEST(ResizeBilinear, EmptyBatchAndBadSizes) {
  EXPECT_EQ(op::resize_bilinear(Tensor::empty(device(), {0, 2, 2, 3}), 4, 4).shape(), (Shape{0, 4, 4, 3}));
  const Tensor x = upload(random({1, 2, 2, 3}, 1));
  EXPECT_THROW(op::resize_bilinear(x, 0, 4), Error);
  EXPECT_THROW(op::resize_bilinear(x, 4, 1 << 20), Error);
  EXPECT_THROW(op::resize_bilinear(Tensor::empty(device(), {1, 0, 2, 3}), 4, 4), Error);
}

}  // namespace
}  // namespace vkflux::test
