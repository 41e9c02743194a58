#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "autograd/ops.h"
#include "tests/harness/op_check.h"

namespace vkflux::test {
namespace {

double sigmoid(double x) {
  return 1 / (1 + std::exp(-x));
}

struct UnaryCase {
  op::Unary kind;
  const char* name;
  std::function<double(double)> f;
  bool positive = false;
};

std::vector<UnaryCase> cases() {
  using op::Unary;
  return {
      {Unary::gelu_tanh, "gelu_tanh",
       [](double x) { return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x))); }},
      {Unary::gelu_erf, "gelu_erf", [](double x) { return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0))); }},
      {Unary::gelu_quick, "gelu_quick", [](double x) { return x * sigmoid(1.702 * x); }},
      {Unary::silu, "silu", [](double x) { return x * sigmoid(x); }},
      {Unary::relu, "relu", [](double x) { return std::max(x, 0.0); }},
      {Unary::sigmoid, "sigmoid", sigmoid},
      {Unary::tanh, "tanh", [](double x) { return std::tanh(x); }},
      {Unary::softplus, "softplus", [](double x) { return std::log1p(std::exp(x)); }},
      {Unary::elu_plus1, "elu_plus1", [](double x) { return x > 0 ? x + 1 : std::exp(x); }},
      {Unary::exp, "exp", [](double x) { return std::exp(x); }},
      {Unary::log, "log", [](double x) { return std::log(x); }, true},
      {Unary::sqrt, "sqrt", [](double x) { return std::sqrt(x); }, true},
      {Unary::square, "square", [](double x) { return x * x; }},
      {Unary::abs, "abs", [](double x) { return std::fabs(x); }}};
}

TEST(UnaryTest, MatchesReference) {
  for (const UnaryCase& u : cases()) {
    for (const Shape& shape : {Shape{1}, Shape{7}, Shape{3, 5}, Shape{257}, Shape{9, 120}}) {
      Host x = random(shape, 3, 2);
      for (double& v : x.data) {
        if (u.positive) v = static_cast<double>(static_cast<float>(std::fabs(v) + 0.25));
      }
      check_op(
          u.name, {x}, [&](const auto& in) { return std::vector<Tensor>{op::unary(in[0], u.kind)}; },
          [&](const auto& in) {
            Host y = in[0];
            for (double& v : y.data) v = u.f(v);
            return std::vector<Host>{y};
          });
    }
  }
}

TEST(UnaryTest, LargeArgumentsStayFinite) {
  for (const UnaryCase& u : cases()) {
    if (u.positive || u.kind == op::Unary::exp || u.kind == op::Unary::square) continue;
    Host x{{4}, {-1e4, -90, 90, 1e4}, true};
    check_op(
        u.name, {x}, [&](const auto& in) { return std::vector<Tensor>{op::unary(in[0], u.kind)}; },
        [&](const auto& in) {
          Host y = in[0];
          for (double& v : y.data) v = v > 700 && u.kind == op::Unary::softplus ? v : u.f(v);
          return std::vector<Host>{y};
        });
  }
}

}  // namespace
}  // namespace vkflux::test
