#include <gtest/gtest.h>

#include <cmath>

#include "autograd/ops.h"
#include "autograd/run.h"
#include "tests/harness/gpu.h"
#include "tests/harness/op_check.h"
#include "vk/error.h"

namespace vkflux::test {
namespace {

size_t at(int64_t i) {
  return static_cast<size_t>(i);
}

int64_t padded(int64_t cols) {
  return (cols + 4) / 4 * 4;
}

struct ValuesCase {
  Shape v;  // [B, H, N, D]
  int64_t start, length;
  bool masked;
};

TEST(KernelValues, OnesBehindTheKeptValues) {
  for (const ValuesCase& c : {ValuesCase{{1, 2, 9, 8}, 0, 9, false}, ValuesCase{{2, 2, 9, 24}, 3, 5, true},
                              ValuesCase{{2, 1, 7, 7}, 6, 1, true}, ValuesCase{{1, 3, 5, 33}, 0, 2, false}}) {
    std::vector<uint8_t> mask(at(c.v[0] * c.v[2]));
    for (size_t i = 0; i < mask.size(); ++i) mask[i] = i % 3 != 1;
    const Tensor device_mask =
        c.masked ? Tensor::from(device(), std::span<const uint8_t>(mask), {c.v[0], c.v[2]}) : Tensor();
    check_op(
        "kernel_values " + c.v.str(), {random(c.v, 5)},
        [&](const auto& t) { return std::vector{op::kernel_values(t[0], device_mask, c.start, c.length)}; },
        [&](const auto& h) {
          const int64_t d = c.v[3], width = padded(d);
          Host y{{c.v[0], c.v[1], c.length, width}, {}, true};
          for (int64_t b = 0; b < c.v[0]; ++b)
            for (int64_t i = 0; i < c.v[1] * c.length * width; ++i) {
              const int64_t head = b * c.v[1] + i / (c.length * width), col = i % width,
                            key = c.start + i / width % c.length;
              const bool keep = !c.masked || mask[at(b * c.v[2] + key)];
              const double x = col < d ? h[0][at((head * c.v[2] + key) * d + col)] : col == d ? 1 : 0;
              y.data.push_back(keep ? x : 0);
            }
          return std::vector{y};
        });
  }
  const Tensor v = Tensor::zeros(device(), {1, 1, 4, 4});
  EXPECT_EQ(op::kernel_values(v, {}, 4, 0).numel(), 0);
  EXPECT_THROW(op::kernel_values(v, {}, 2, 3), Error);
  EXPECT_THROW(op::kernel_values(v, Tensor::zeros(device(), {1, 3}, DType::u8), 0, 4), Error);
}

TEST(KernelQuotient, ClampedDenominators) {
  constexpr double kEps = 0.5;
  for (const char* variant : {"simd", "gpu"}) {
    const VariantOverride force("kernel_quotient", variant);
    for (const int64_t cols : {8, 7, 33, 64}) {
      Host x = random({2, 5, padded(cols)}, 6);
      const double den[] = {2, 0.1, 0.75, 0, 40, 1, 0.3, 3, 0.49, 7};
      for (int64_t r = 0; r < 10; ++r) x[at(r * padded(cols) + cols)] = den[r];
      check_op(
          std::string(variant) + " kernel_quotient", {x},
          [&](const auto& t) {
            return std::vector{op::kernel_quotient(t[0], cols, static_cast<float>(kEps)).y};
          },
          [&](const auto& h) {
            Host y{{2, 5, cols}, {}, true};
            for (int64_t i = 0; i < 10 * cols; ++i) {
              const int64_t row = i / cols * padded(cols);
              y.data.push_back(h[0][at(row + i % cols)] / std::max(h[0][at(row + cols)], kEps));
            }
            return std::vector{y};
          },
          {2e-4, 1e-3, 1e-6, 400});
      const auto dens = op::kernel_quotient(upload(x), cols, static_cast<float>(kEps)).den.to_host();
      for (size_t r = 0; r < 10; ++r) EXPECT_EQ(dens[r], static_cast<float>(den[r]));
    }
  }
  EXPECT_THROW(op::kernel_quotient(Tensor::zeros(device(), {3, 8}), 8), Error);
}

TEST(MinAll, FindsTheSmallest) {
  for (const int64_t n : {1, 2, 63, 64, 65, 5000}) {
    for (const int64_t where : {int64_t{0}, n / 2, n - 1}) {
      Host x = random({n}, 7);
      x[at(where)] = -100;
      EXPECT_EQ(op::min_all(upload(x)).item(), -100);
    }
  }
  EXPECT_THROW(op::min_all(Tensor::zeros(device(), {0})), Error);
}

}  // namespace
}  // namespace vkflux::test
