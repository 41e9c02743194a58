// Products on cooperative matrices. Where the device has none, the engine must take another kernel by itself,
// and the same results are expected of it.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>

#include "autograd/ops.h"
#include "autograd/ops/matmul_engine.h"
#include "autograd/run.h"
#include "tests/harness/gpu.h"
#include "tests/harness/op_check.h"

namespace vkflux::test {
namespace {

struct Product {
  GemmForm form;
  DType type;
  int64_t m, n, k, batch = 1;
  bool rounded = true;  // A's values are exact in 16 bits
};

size_t at(int64_t i) {
  return static_cast<size_t>(i);
}

std::vector<float> on_device(const Host& h, DType type) {
  const std::vector<float> values(h.data.begin(), h.data.end());
  return Tensor::from(device(), values, {static_cast<int64_t>(values.size())}, type).to_host();
}

std::string text(const Product& p) {
  return fmt::format("form {} {} M{} N{} K{} x{}", static_cast<int>(p.form), name(p.type), p.m, p.n, p.k,
                     p.batch);
}

int64_t up(int64_t x) {
  return (x + 3) / 4 * 4;
}

// C += 0.5 op(A) op(B) with rows of C further apart than they are long; returns the error against double
// precision.
double engine_error(const Product& p) {
  Device& d = device();
  const int64_t a_rows = p.form == GemmForm::tn ? p.k : p.m, b_rows = p.form == GemmForm::nt ? p.n : p.k;
  const int64_t lda = up(p.form == GemmForm::tn ? p.m : p.k), ldb = up(p.form == GemmForm::nt ? p.k : p.n);
  const int64_t ldc = up(p.n) + 4;
  const std::vector<float> a = on_device(random({p.batch * a_rows * lda}, 1),
                                         p.rounded ? DType::bf16 : DType::f32),
                           b = on_device(random({p.batch * b_rows * ldb}, 2), p.type);
  const Host c = random({p.batch * p.m * ldc}, 3);
  std::vector<double> want = c.data;
  for (int64_t z = 0; z < p.batch; ++z) {
    for (int64_t i = 0; i < p.m; ++i) {
      for (int64_t j = 0; j < p.n; ++j) {
        double sum = 0;
        for (int64_t q = 0; q < p.k; ++q) {
          const float x = a[at(z * a_rows * lda + (p.form == GemmForm::tn ? q * lda + i : i * lda + q))];
          const float y = b[at(z * b_rows * ldb + (p.form == GemmForm::nt ? j * ldb + q : q * ldb + j))];
          sum += static_cast<double>(x) * static_cast<double>(y);
        }
        want[at((z * p.m + i) * ldc + j)] += 0.5 * sum;
      }
    }
  }
  Gemm g;
  g.form = p.form;
  g.m = p.m, g.n = p.n, g.k = p.k, g.batch = p.batch;
  g.a = {Tensor::from(d, a, {p.batch * a_rows * lda}), lda, a_rows * lda};
  g.b = {Tensor::from(d, b, {p.batch * b_rows * ldb}, p.type), ldb, b_rows * ldb};
  g.alpha = 0.5f;
  g.accumulate = true;
  std::vector<float> first;
  const bool bf16 = p.type == DType::bf16 && d.kernels().available("matmul_coop", "bf16");
  const bool coop = p.type != DType::f32 && d.kernels().available("matmul_coop", "f16");
  for (int run = 0; run < 2; ++run) {
    const Tensor out = upload(c);
    g.c = {out, ldc, p.m * ldc};
    const auto ran = kernels_of(d, [&] { gemm(d, g); });
    EXPECT_EQ(ran.contains(bf16 ? "matmul_coop:bf16" : "matmul_coop:f16"), coop) << text(p);
    if (run == 0) {
      first = out.to_host();
    } else {
      EXPECT_EQ(out.to_host(), first) << "two runs differ: " << text(p);
    }
  }
  return error_of(first, want);
}

constexpr GemmForm kForms[] = {GemmForm::nt, GemmForm::nn, GemmForm::tn};

TEST(MatmulCoop, ExactFactorsGiveF32Results) {
  const VariantOverride force("matmul", "coop", VariantOverride::Where::it_fits);
  for (const GemmForm form : kForms) {
    for (const DType type : {DType::f16, DType::bf16}) {
      for (const Product& p : {Product{form, type, 70, 68, 36}, Product{form, type, 9, 132, 20},
                               Product{form, type, 130, 64, 48}, Product{form, type, 21, 20, 18, 3},
                               Product{form, type, 1, 4, 4}}) {
        EXPECT_LE(engine_error(p), 2e-5) << text(p);
      }
    }
  }
}

TEST(MatmulCoop, OtherFactorsAreRounded) {
  const VariantOverride force("matmul", "coop", VariantOverride::Where::it_fits);
  for (const DType type : {DType::f16, DType::bf16}) {
    EXPECT_LE(engine_error({GemmForm::nt, type, 40, 68, 100, 1, false}), 4e-3) << name(type);
  }
}

TEST(MatmulCoop, F32WeightsKeepTheirPrecision) {
  const VariantOverride force("matmul", "coop", VariantOverride::Where::it_fits);
  EXPECT_LE(engine_error({GemmForm::nt, DType::f32, 40, 68, 100, 1, false}), 2e-6);
}

TEST(MatmulCoop, UnalignedRowsTakeAnotherKernel) {
  const VariantOverride force("matmul", "coop", VariantOverride::Where::it_fits);
  const Host x = random({5, 7}, 1), w = random({3, 7}, 2);
  const Tensor weight =
      Tensor::from(device(), std::vector<float>(w.data.begin(), w.data.end()), {3, 7}, DType::f16);
  const std::vector<float> w16 = weight.to_host();
  std::vector<double> want(15);
  for (size_t i = 0; i < want.size(); ++i) {
    for (size_t q = 0; q < 7; ++q) want[i] += x[i / 3 * 7 + q] * static_cast<double>(w16[i % 3 * 7 + q]);
  }
  EXPECT_LE(error_of(op::linear(upload(x), weight).to_host(), want), 2e-5);
}

// Long sums over few rows are split; the epilogues of linear.
TEST(MatmulCoop, LinearSplitsAndActivates) {
  Device& d = device();
  const int64_t m = 12, n = 24, k = 1536;
  const std::vector<float> x = on_device(random({m, k}, 1), DType::bf16),
                           w = on_device(random({n, k}, 2, 0.02), DType::f16);
  const Host bias = random({n}, 3);
  for (const op::Activation act : {op::Activation::none, op::Activation::gelu_tanh, op::Activation::silu}) {
    for (const bool with_bias : {false, true}) {
      const auto run = [&](const char* variant) {
        const VariantOverride force("matmul", variant, VariantOverride::Where::it_fits);
        return op::linear(Tensor::from(d, x, {m, k}), Tensor::from(d, w, {n, k}, DType::f16),
                          with_bias ? upload(bias) : Tensor(), act)
            .to_host();
      };
      const std::vector<float> want = run("gpu");
      EXPECT_LE(error_of(run("coop"), {want.begin(), want.end()}), 2e-5)
          << "activation " << static_cast<int>(act) << " bias " << with_bias;
    }
  }
}

// Activations beyond the range of f16 are as large as f16 goes, not infinite.
TEST(MatmulCoop, LargeActivationsStayFinite) {
  Device& d = device();
  const VariantOverride force("matmul", "coop", VariantOverride::Where::it_fits);
  std::vector<float> x(16 * 8, 0.0f), w(8 * 8, 0.0f);
  x[0] = 1e6f, x[9] = -1e6f, x[18] = 3.0f;
  for (size_t i = 0; i < 8; ++i) w[i * 8 + i] = 0.5f;
  const std::vector<float> y =
      op::linear(Tensor::from(d, x, {16, 8}), Tensor::from(d, w, {8, 8}, DType::f16)).to_host();
  const bool f16 = d.kernels().available("matmul_coop", "f16");
  EXPECT_EQ(y[0], f16 ? 32752.0f : 5e5f);
  EXPECT_EQ(y[9], f16 ? -32752.0f : -5e5f);
  EXPECT_EQ(y[18], 1.5f);
}

}  // namespace
}  // namespace vkflux::test
