#include <vector>

#include "autograd/ops.h"
#include "autograd/ops/unary.h"
#include "autograd/run.h"

namespace vkflux::op {
namespace {

void expect_equal(const char* op, const Tensor& x, const Tensor& y) {
  expect(op, x.shape() == y.shape(), "x and y must have the same shape", {&x, &y});
}

}  // namespace

Tensor mse(const Tensor& x, const Tensor& y) {
  expect_equal("mse", x, y);
  return mean_all(unary(sub(x, y), Unary::square));
}

Tensor l1(const Tensor& x, const Tensor& y) {
  expect_equal("l1", x, y);
  return mean_all(unary(sub(x, y), Unary::abs));
}

Tensor smooth_l1(const Tensor& x, const Tensor& y, float beta) {
  expect_equal("smooth_l1", x, y);
  if (beta <= 0) return l1(x, y);
  return mean_all(unary(sub(x, y), ParametricUnary::smooth_l1, beta));
}

Tensor cosine_similarity(const Tensor& x, const Tensor& y, float eps) {
  expect("cosine_similarity", x.rank() >= 1 && x.shape() == y.shape(), "x and y must have the same shape",
         {&x, &y});
  const std::vector<int> last{x.rank() - 1};
  const auto norm = [&](const Tensor& t) {
    return unary(sum(unary(t, Unary::square), last), ParametricUnary::norm, eps);
  };
  return div(sum(mul(x, y), last), mul(norm(x), norm(y)));
}

}  // namespace vkflux::op
