#include <gtest/gtest.h>

#include "autograd/ops.h"
#include "autograd/tape.h"
#include "tests/harness/gpu.h"
#include "tests/harness/op_check.h"
#include "vk/error.h"

namespace vkflux::test {
namespace {

Host host_sum(const Host& x, const std::vector<int>& dims, bool keep, bool average) {
  Host y{{}, {}, true};
  std::vector<bool> reduced(static_cast<size_t>(x.shape.rank()));
  double n = 1;
  for (int d : dims) reduced[static_cast<size_t>(d < 0 ? d + x.shape.rank() : d)] = true;
  for (int i = 0; i < x.shape.rank(); ++i) {
    const bool r = reduced[static_cast<size_t>(i)];
    if (r) n *= static_cast<double>(x.shape[i]);
    if (!r || keep) y.shape.push_back(r ? 1 : x.shape[i]);
  }
  y.data.assign(static_cast<size_t>(y.shape.numel()), 0);
  for (int64_t i = 0; i < x.shape.numel(); ++i) {
    int64_t rest = i;
    size_t at = 0, step = 1;
    for (int d = x.shape.rank() - 1; d >= 0; --d) {
      const auto c = static_cast<size_t>(rest % x.shape[d]);
      rest /= x.shape[d];
      if (reduced[static_cast<size_t>(d)]) continue;
      at += c * step;
      step *= static_cast<size_t>(x.shape[d]);
    }
    y[at] += x[static_cast<size_t>(i)] / (average ? n : 1);
  }
  return y;
}

void check_sum(const Shape& shape, const std::vector<int>& dims, bool keep = false) {
  const Host x = random(shape, 1);
  check_op(
      "sum " + shape.str(), {x},
      [&](const auto& in) {
        return std::vector<Tensor>{op::sum(in[0], dims, keep), op::mean(in[0], dims, !keep)};
      },
      [&](const auto& in) {
        return std::vector<Host>{host_sum(in[0], dims, keep, false), host_sum(in[0], dims, !keep, true)};
      },
      {.max_probes = 6});
}

TEST(Reduce, ColumnRowAndMiddleSums) {
  check_sum(Shape{5, 8}, {0});
  check_sum(Shape{5, 7}, {0});
  check_sum(Shape{150, 12}, {0});
  check_sum(Shape{150, 3}, {0});
  check_sum(Shape{5, 8}, {1});
  check_sum(Shape{5, 7}, {-1}, true);
  check_sum(Shape{3, 300}, {1});
  check_sum(Shape{3, 301}, {1});
  check_sum(Shape{2, 5, 8}, {1});
  check_sum(Shape{2, 100, 6}, {1}, true);
}

TEST(Reduce, SeveralDimensionsAndEveryRank) {
  check_sum(Shape{}, {});
  check_sum(Shape{7}, {0});
  check_sum(Shape{1, 1}, {0});
  check_sum(Shape{2, 3, 4}, {0, 2});
  check_sum(Shape{2, 3, 4}, {0, 1, 2}, true);
  check_sum(Shape{2, 3, 2, 3, 2, 3}, {1, 3, 5});
  check_sum(Shape{2, 3, 2, 3, 2, 3}, {0, 2, 4});
  check_sum(Shape{3, 4}, {});
}

TEST(Reduce, OfNothingIsZero) {
  const Tensor x = Tensor::zeros(device(), Shape{0, 3});
  EXPECT_EQ(op::sum(x, {0}).to_host(), (std::vector<float>{0, 0, 0}));
  EXPECT_EQ(op::sum(x, {1}).numel(), 0);
  EXPECT_EQ(op::sum_all(x).item(), 0);
}

TEST(Reduce, LongSumsStayAccurate) {
  const int64_t n = 300007;
  const Host x = random(Shape{n}, 2);
  double want = 0;
  for (double v : x.data) want += v;
  if (device().caps().max_texel_elements * 4 < static_cast<uint64_t>(n)) {
    EXPECT_THROW(op::sum_all(upload(x)), Error) << "no texel buffer holds it here";
    return;
  }
  EXPECT_NEAR(op::sum_all(upload(x)).item(), want, 2e-2);
  std::vector<float> ones(static_cast<size_t>(n), 1);
  EXPECT_EQ(op::sum_all(Tensor::from(device(), ones, Shape{n})).item(), static_cast<float>(n));
  EXPECT_NEAR(op::mean_all(Tensor::from(device(), ones, Shape{n})).item(), 1, 1e-6);
}

TEST(Reduce, ReadsStridedViews) {
  check_op(
      "sum of a view", {random(Shape{6, 10}, 3)},
      [](const auto& in) {
        return std::vector<Tensor>{op::sum(op::narrow(in[0], 1, 3, 5), {0}),
                                   op::sum_all(op::narrow(in[0], 1, 1, 2))};
      },
      [](const auto& in) {
        Host a{Shape{5}, std::vector<double>(5), true}, b{Shape{}, {0}, true};
        for (size_t r = 0; r < 6; ++r) {
          for (size_t c = 0; c < 5; ++c) a[c] += in[0][10 * r + 3 + c];
          b[0] += in[0][10 * r + 1] + in[0][10 * r + 2];
        }
        return std::vector<Host>{a, b};
      });
}

TEST(Reduce, NoSuchDimension) {
  EXPECT_THROW(op::sum(Tensor::zeros(device(), Shape{2, 3}), {2}), Error);
}

}  // namespace
}  // namespace vkflux::test
