#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "autograd/ops.h"
#include "autograd/tape.h"
#include "tests/harness/gpu.h"
#include "tests/harness/op_check.h"

namespace vkflux::test {
namespace {

HostFn mean_of(const std::function<double(double)>& f) {
  return [f](const std::vector<Host>& in) {
    double sum = 0;
    for (size_t i = 0; i < in[0].data.size(); ++i) sum += f(in[0][i] - in[1][i]);
    return std::vector<Host>{{Shape{}, {sum / static_cast<double>(in[0].data.size())}, true}};
  };
}

TEST(LossesTest, MeansOfDifferences) {
  for (const Shape& shape : {Shape{1}, Shape{2, 7}, Shape{3, 4, 5}, Shape{1009}}) {
    const std::vector<Host> in{random(shape, 1), random(shape, 2)};
    check_op(
        "mse", in, [](const auto& t) { return std::vector<Tensor>{op::mse(t[0], t[1])}; },
        mean_of([](double d) { return d * d; }));
    check_op(
        "l1", in, [](const auto& t) { return std::vector<Tensor>{op::l1(t[0], t[1])}; },
        mean_of([](double d) { return std::fabs(d); }));
    for (float beta : {0.05f, 1.0f}) {
      const double b = beta;
      check_op(
          "smooth_l1", in,
          [&](const auto& t) { return std::vector<Tensor>{op::smooth_l1(t[0], t[1], beta)}; },
          mean_of([b](double d) { return std::fabs(d) < b ? 0.5 * d * d / b : std::fabs(d) - 0.5 * b; }));
    }
  }
}

TEST(LossesTest, CosineSimilarity) {
  for (const Shape& shape : {Shape{1, 1}, Shape{5, 33}, Shape{2, 3, 4, 8}}) {
    check_op(
        "cosine", {random(shape, 1), random(shape, 2)},
        [](const auto& t) { return std::vector<Tensor>{op::cosine_similarity(t[0], t[1])}; },
        [](const auto& in) {
          const auto d = static_cast<size_t>(in[0].shape[-1]), rows = in[0].data.size() / d;
          Shape s;
          for (int i = 0; i + 1 < in[0].shape.rank(); ++i) s.push_back(in[0].shape[i]);
          Host out{s, {}, true};
          for (size_t r = 0; r < rows; ++r) {
            double xy = 0, xx = 0, yy = 0;
            for (size_t i = r * d; i < (r + 1) * d; ++i) {
              xy += in[0][i] * in[1][i];
              xx += in[0][i] * in[0][i];
              yy += in[1][i] * in[1][i];
            }
            out.data.push_back(xy / (std::max(std::sqrt(xx), 1e-8) * std::max(std::sqrt(yy), 1e-8)));
          }
          return std::vector<Host>{out};
        });
  }
}

TEST(LossesTest, CosineOfZeroVectorsHasFiniteGradients) {
  const Tensor x = Tensor::zeros(device(), {2, 5}), y = Tensor::full(device(), {2, 5}, 1.0f);
  Tape tape;
  tape.watch(x);
  tape.watch(y);
  Tensor loss;
  {
    const auto scope = tape.record();
    loss = op::sum_all(op::cosine_similarity(x, y));
  }
  const Grads g = tape.backward(loss);
  for (const Tensor& t : {loss, g.of(x), g.of(y)}) {
    for (float v : t.to_host()) EXPECT_TRUE(std::isfinite(v));
  }
}

}  // namespace
}  // namespace vkflux::test
