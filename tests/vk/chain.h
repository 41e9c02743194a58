// Dispatches that depend on each other.
#pragma once

#include <gtest/gtest.h>

#include <numeric>
#include <vector>

#include "autograd/ops.h"
#include "autograd/run.h"

namespace vkflux::test {

inline void affine(Device& d, const Tensor& y, const Tensor& x, float scale, float shift) {
  run(d, spec::Affine{.LOCAL = 64}, {x, y}, args::AffineArgs{u32(x.numel()), scale, shift},
      groups_1d(ceil_div(static_cast<uint64_t>(x.numel()), 256)), {0, 0});
}

// Each step reads what the one before wrote and overwrites what that one read.
inline void check_chain(Device& d) {
  const size_t n = 5000;
  std::vector<float> x(n);
  std::iota(x.begin(), x.end(), 0.0f);
  const Tensor a = Tensor::from(d, x, Shape{static_cast<int64_t>(n)}), b = Tensor::empty(d, a.shape());
  for (int i = 0; i < 20; ++i) {
    affine(d, b, a, 1, 1);
    affine(d, a, b, 1, 1);
    if (i % 7 == 3) d.stream().submit();
  }
  const std::vector<float> got = a.to_host();
  for (size_t i = 0; i < n; ++i) ASSERT_EQ(got[i], static_cast<float>(i) + 40);
}

}  // namespace vkflux::test
