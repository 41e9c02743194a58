#include <fmt/format.h>
#include <gtest/gtest.h>

#include <array>
#include <cmath>

#include "autograd/ops.h"
#include "autograd/run.h"
#include "autograd/tape.h"
#include "tests/harness/expect_error.h"
#include "tests/harness/gpu.h"
#include "tests/harness/op_check.h"
#include "vk/error.h"

namespace vkflux::test {
namespace {

double activate(op::Activation act, double x) {
  switch (act) {
    case op::Activation::gelu_tanh:
      return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case op::Activation::gelu_erf:
      return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0)));
    case op::Activation::gelu_quick:
      return x / (1 + std::exp(-1.702 * x));
    case op::Activation::silu:
      return x / (1 + std::exp(-x));
    case op::Activation::none:
      break;
  }
  return x;
}

// inputs: x[..., K], weight[N, K], maybe bias[N]
std::vector<Host> reference(const std::vector<Host>& in, op::Activation act) {
  const Host &x = in[0], &w = in[1];
  const size_t k = static_cast<size_t>(w.shape[1]), n = static_cast<size_t>(w.shape[0]),
               rows = x.data.size() / k;
  Shape shape = x.shape;
  shape[-1] = static_cast<int64_t>(n);
  Host y{shape, std::vector<double>(rows * n), true};
  for (size_t r = 0; r < rows; ++r) {
    for (size_t c = 0; c < n; ++c) {
      double sum = in.size() > 2 ? in[2][c] : 0;
      for (size_t i = 0; i < k; ++i) sum += x[r * k + i] * w[c * k + i];
      y[r * n + c] = activate(act, sum);
    }
  }
  return {y};
}

void check(const Shape& x, int64_t n, bool bias, op::Activation act) {
  std::vector<Host> in{random(x, 1), random({n, x[-1]}, 2, 1 / std::sqrt(static_cast<double>(x[-1])))};
  if (bias) in.push_back(random({n}, 3));
  for (const char* variant : {"simd", "panels", "gpu"}) {
    const VariantOverride force("matmul", variant, VariantOverride::Where::it_fits);
    CheckOptions options;
    options.max_probes = 8;
    check_op(
        fmt::format("linear {} {} -> {}", variant, x.str(), n), in,
        [&](const std::vector<Tensor>& t) -> std::vector<Tensor> {
          return {op::linear(t[0], t[1], t.size() > 2 ? t[2] : Tensor(), act)};
        },
        [&](const std::vector<Host>& h) { return reference(h, act); }, options);
  }
}

TEST(Linear, AwkwardShapes) {
  check({1, 1}, 1, true, op::Activation::none);
  check({3, 5, 7}, 11, true, op::Activation::none);
  check({2, 12}, 3, false, op::Activation::none);  // vector loads, scalar stores
  check({37, 20}, 44, true, op::Activation::none);
  check({2, 17, 64}, 100, false, op::Activation::none);
  check({67, 36}, 29, true, op::Activation::silu);
  check({130, 8}, 40, true, op::Activation::none);  // several parts in the bias gradient
}

TEST(Linear, Activations) {
  for (auto act : {op::Activation::gelu_tanh, op::Activation::gelu_erf, op::Activation::gelu_quick,
                   op::Activation::silu}) {
    check({13, 24}, 36, true, act);
  }
  check({5, 9}, 6, false, op::Activation::gelu_tanh);
}

TEST(Linear, LongContraction) {  // the weight's gradient is split over the rows
  check({1, 1100, 4}, 4, true, op::Activation::none);
}

TEST(Linear, HalfWeights) {
  Device& d = device();
  for (const DType dtype : {DType::f16, DType::bf16}) {
    for (const Shape& s : {Shape{40, 64}, Shape{7, 24}, Shape{12, 20}, Shape{5, 7}}) {
      Host w = random(s, 4, 0.3);
      for (double& v : w.data) {
        const float f = static_cast<float>(v);
        v = static_cast<double>(dtype == DType::f16 ? from_f16(to_f16(f)) : from_bf16(to_bf16(f)));
      }
      const std::vector<float> values(w.data.begin(), w.data.end());
      const Tensor weight = Tensor::from(d, std::span<const float>(values), s, dtype);
      for (const char* variant : {"simd", "panels", "gpu"}) {
        const VariantOverride force("matmul", variant, VariantOverride::Where::it_fits);
        check_op(
            fmt::format("linear {} {} {}", name(dtype), s.str(), variant), {random({19, s[1]}, 5)},
            [&](const std::vector<Tensor>& t) -> std::vector<Tensor> { return {op::linear(t[0], weight)}; },
            [&](const std::vector<Host>& h) {
              return reference({h[0], w}, op::Activation::none);
            });
      }
    }
  }
}

TEST(Linear, PackedWeights) {
  struct Row {
    DType dtype;
    Shape weight;
    int64_t m;
  };
  const std::vector<Row> rows{
      {DType::f8_e4m3, {40, 64}, 19}, {DType::f8_e5m2, {9, 48}, 3}, {DType::f8_e4m3, {5, 7}, 4},
      {DType::f8_e5m2, {12, 20}, 9},  {DType::q8_0, {7, 32}, 1},    {DType::q8_0, {36, 96}, 17},
      {DType::q8_0, {30, 608}, 200},  {DType::q4_k, {12, 256}, 2},  {DType::q4_k, {37, 768}, 18},
      {DType::q4_0, {7, 96}, 3},      {DType::q4_1, {12, 32}, 5},   {DType::q5_0, {5, 160}, 2},
      {DType::q5_1, {21, 352}, 7},    {DType::q2_k, {12, 512}, 3},  {DType::q3_k, {19, 256}, 6},
      {DType::q5_k, {12, 768}, 7},    {DType::q6_k, {37, 512}, 5}};
  for (const auto& [dtype, shape, m] : rows) {
    const Tensor weight = op::quantize(upload(random(shape, 4, 0.3)), dtype);
    Host w{shape, {}, true};
    for (const float v : weight.to_host()) w.data.push_back(static_cast<double>(v));
    const bool act = m == 3 || m == 200;
    for (const char* variant : {"simd", "gpu"}) {
      const VariantOverride force("matmul", variant, VariantOverride::Where::it_fits);
      CheckOptions options;
      options.max_probes = 6;
      check_op(
          fmt::format("linear {} {} {} rows {}", name(dtype), shape.str(), m, variant),
          {random({m, shape[1]}, 5), random({shape[0]}, 6)},
          [&](const std::vector<Tensor>& t) -> std::vector<Tensor> {
            return {op::linear(t[0], weight, t[1], act ? op::Activation::silu : op::Activation::none)};
          },
          [&](const std::vector<Host>& h) {
            return reference({h[0], w, h[1]}, act ? op::Activation::silu : op::Activation::none);
          },
          options);
    }
  }
}

// Few rows: every format, number of columns and way to share a row of the weight.
TEST(Linear, FewRows) {
  for (const DType dtype :
       {DType::f32, DType::f16, DType::bf16, DType::f8_e4m3, DType::q8_0, DType::q4_k, DType::q4_0,
        DType::q4_1, DType::q5_0, DType::q5_1, DType::q2_k, DType::q3_k, DType::q5_k, DType::q6_k}) {
    for (const auto& [m, n, k] :
         std::vector<std::array<int64_t, 3>>{{2, 67, 768}, {1, 4099, 256}, {3, 1031, 256}, {8, 6, 256}}) {
      const bool often =
          !is_packed(dtype) || dtype == DType::f8_e4m3 || dtype == DType::q8_0 || dtype == DType::q4_k;
      if (m != 2 && !often) continue;
      const VariantOverride force("matmul", "matvec");
      const Host x = random({m, k}, 1), bias = random({n}, 3);
      const Tensor dense = upload(random({n, k}, 2, 0.3));
      const Tensor weight = dtype == DType::f32 ? dense
                            : is_packed(dtype)  ? op::quantize(dense, dtype)
                                                : op::cast(dense, dtype);
      Host w{{n, k}, {}, true};
      for (const float v : weight.to_host()) w.data.push_back(static_cast<double>(v));
      const op::Activation act = m == 2 ? op::Activation::silu : op::Activation::none;
      const std::vector<float> y = op::linear(upload(x), weight, upload(bias), act).to_host();
      EXPECT_LT(error_of(y, reference({x, w, bias}, act)[0].data), 1e-5)
          << name(dtype) << " M" << m << " N" << n << " K" << k;
    }
  }
  const VariantOverride force("matmul", "matvec", VariantOverride::Where::it_fits);  // gradients are others
  check_op(  // gradients: the value before the activation is kept
      "linear of few rows", {random({8, 36}, 1), random({10, 36}, 2), random({10}, 3)},
      [](const std::vector<Tensor>& t) -> std::vector<Tensor> {
        return {op::linear(t[0], t[1], t[2], op::Activation::gelu_tanh)};
      },
      [](const std::vector<Host>& h) { return reference(h, op::Activation::gelu_tanh); });
}

TEST(Linear, PackedWeightsLargerThanASlab) {
  Device& d = device();
  constexpr int64_t kRows = 9000, kColumns = 288;  // two slabs of up to 4 MB
  const Tensor weight = op::quantize(op::affine(op::normal(d, {kRows, kColumns}, 1, 1), 0.1f), DType::q8_0);
  const Tensor wide = op::dequantize(weight), x = upload(random({200, kColumns}, 2)),
               bias = upload(random({kRows}, 3));
  if (d.caps().max_texel_elements * 4 < kRows * kColumns) {
    EXPECT_THROW(op::linear(x, wide, bias), Error) << "no texel buffer holds the weight here";
    return;
  }
  std::vector<std::vector<float>> y, dx;
  for (const Tensor& w : {weight, wide}) {
    Tape tape;
    tape.watch(x);
    Tensor out;
    {
      const auto scope = tape.record();
      out = op::linear(x, w, bias, op::Activation::silu);
    }
    y.push_back(out.to_host());
    dx.push_back(tape.backward(out).of(x).to_host());
  }
  EXPECT_LT(error_of(y[0], {y[1].begin(), y[1].end()}), 1e-5);
  EXPECT_LT(error_of(dx[0], {dx[1].begin(), dx[1].end()}), 1e-5);
}

// On cooperative matrices in 16 bits where there are any: decoded by the kernel, and with many rows in slabs.
TEST(Linear, PackedWeightsOnCooperativeMatrices) {
  const VariantOverride force("matmul", "coop", VariantOverride::Where::it_fits);  // not in f32
  const bool there = device().kernels().available("matmul_coop", "f16_packed");
  struct Row {
    DType dtype;
    int64_t m, n, k;
  };
  for (const auto& [dtype, m, n, k] :
       {Row{DType::f8_e5m2, 70, 68, 48}, Row{DType::f8_e4m3, 9, 36, 20}, Row{DType::q8_0, 70, 68, 320},
        Row{DType::q4_k, 21, 132, 512}, Row{DType::q8_0, 1030, 12, 32}, Row{DType::q4_0, 33, 36, 96},
        Row{DType::q4_1, 70, 68, 160}, Row{DType::q5_0, 40, 12, 352}, Row{DType::q5_1, 33, 68, 64},
        Row{DType::q2_k, 70, 36, 512}, Row{DType::q3_k, 33, 68, 256}, Row{DType::q5_k, 40, 36, 768},
        Row{DType::q6_k, 70, 68, 512}}) {
    const Tensor weight = op::quantize(upload(random({n, k}, 4, 0.3)), dtype);
    const Host x = random({m, k}, 5);
    Host w{{n, k}, {}, true};
    for (const float v : weight.to_host()) w.data.push_back(static_cast<double>(v));
    Tape tape;
    const Tensor xd = upload(x);
    tape.watch(xd);
    Tensor y;
    const auto ran = kernels_of(device(), [&] {
      const auto scope = tape.record();
      y = op::linear(xd, weight);
    });
    EXPECT_EQ(ran.contains("matmul_coop:f16_packed") || ran.contains("matmul_coop:f16"), there)
        << name(dtype);
    EXPECT_LT(error_of(y.to_host(), reference({x, w}, op::Activation::none)[0].data), 2e-3) << name(dtype);
    const Host dy = random({m, n}, 6);
    std::vector<double> dx(x.data.size());
    for (size_t r = 0; r < static_cast<size_t>(m); ++r) {
      for (size_t c = 0; c < w.data.size(); ++c)
        dx[r * static_cast<size_t>(k) + c % static_cast<size_t>(k)] +=
            dy[r * static_cast<size_t>(n) + c / static_cast<size_t>(k)] * w[c];
    }
    EXPECT_LT(error_of(tape.backward(y, upload(dy)).of(xd).to_host(), dx), 2e-3) << name(dtype) << " dx";
  }
}

TEST(Linear, RowsOfAPackedWeight) {
  const Tensor weight = op::quantize(upload(random({50, 96}, 4)), DType::q8_0),
               x = upload(random({5, 96}, 5));
  const std::vector<float> all = op::linear(x, weight).to_host();
  for (const auto& [first, count] : std::vector<std::pair<int64_t, int64_t>>{{0, 16}, {16, 32}, {3, 7}}) {
    for (const char* variant : {"simd", "gpu"}) {
      const VariantOverride force("matmul", variant, VariantOverride::Where::it_fits);
      const std::vector<float> part = op::linear(x, op::narrow(weight, 0, first, count)).to_host();
      for (int64_t r = 0; r < 5; ++r) {
        for (int64_t c = 0; c < count; ++c)
          EXPECT_NEAR(part[static_cast<size_t>(r * count + c)], all[static_cast<size_t>(r * 50 + first + c)],
                      1e-4);
      }
    }
  }
}

TEST(Linear, PackedWeightsAreFrozen) {
  const Tensor weight = op::quantize(upload(random({4, 32}, 4)), DType::q8_0), x = upload(random({2, 32}, 5));
  Tape tape;
  tape.watch(weight);
  const auto scope = tape.record();
  expect_error(ErrorCode::invalid_argument, {"frozen", "train it in f32"}, [&] { op::linear(x, weight); });
}

TEST(Linear, WeightView) {  // rows of a wider matrix, starting at an aligned column
  const Host wide = random({10, 96}, 6), x = random({9, 32}, 7);
  Host part{{10, 32}, {}, true};
  for (size_t r = 0; r < 10; ++r) {
    for (size_t c = 0; c < 32; ++c) part.data.push_back(wide[r * 96 + 64 + c]);
  }
  const Tensor weight = upload(wide).slice(1, 64, 32);
  for (const char* variant : {"simd", "panels", "gpu"}) {
    const VariantOverride force("matmul", variant, VariantOverride::Where::it_fits);
    check_op(
        "linear of a weight view", {x},
        [&](const std::vector<Tensor>& t) -> std::vector<Tensor> { return {op::linear(t[0], weight)}; },
        [&](const std::vector<Host>& h) {
          return reference({h[0], part}, op::Activation::none);
        });
  }
}

TEST(Linear, NoRows) {
  Device& d = device();
  const Tensor y = op::linear(Tensor::zeros(d, {0, 8}), upload(random({4, 8}, 8)));
  EXPECT_EQ(y.shape(), (Shape{0, 4}));
  EXPECT_TRUE(y.to_host().empty());
}

TEST(Linear, RejectsShapes) {
  Device& d = device();
  const Tensor w = Tensor::zeros(d, {4, 8});
  EXPECT_THROW(op::linear(Tensor::zeros(d, {2, 7}), w), Error);
  EXPECT_THROW(op::linear(Tensor::zeros(d, {2, 8}), w, Tensor::zeros(d, {5})), Error);
}

}  // namespace
}  // namespace vkflux::test
