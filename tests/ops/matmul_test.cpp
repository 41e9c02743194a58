#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>

#include "autograd/ops.h"
#include "autograd/ops/matmul_engine.h"
#include "autograd/run.h"
#include "tests/harness/gpu.h"
#include "tests/harness/op_check.h"
#include "vk/error.h"

namespace vkflux::test {
namespace {

std::vector<Host> reference(const std::vector<Host>& in, bool transpose_b) {
  const Host &a = in[0], &b = in[1];
  const size_t m = static_cast<size_t>(a.shape[-2]), k = static_cast<size_t>(a.shape[-1]),
               n = static_cast<size_t>(b.shape[transpose_b ? -2 : -1]), batch = a.data.size() / (m * k);
  Shape shape = a.shape;
  shape[-1] = static_cast<int64_t>(n);
  Host c{shape, std::vector<double>(batch * m * n), true};
  for (size_t z = 0; z < batch; ++z) {
    for (size_t i = 0; i < m; ++i) {
      for (size_t j = 0; j < n; ++j) {
        for (size_t q = 0; q < k; ++q) {
          const double y = transpose_b ? b[(z * n + j) * k + q] : b[(z * k + q) * n + j];
          c[(z * m + i) * n + j] += a[(z * m + i) * k + q] * y;
        }
      }
    }
  }
  return {c};
}

void check(const Shape& a, const Shape& b, bool transpose_b) {
  for (const char* variant : {"simd", "panels", "gpu"}) {
    const VariantOverride force("matmul", variant, VariantOverride::Where::it_fits);
    CheckOptions options;
    options.max_probes = 8;
    check_op(
        fmt::format("matmul {} {} {}{}", variant, a.str(), b.str(), transpose_b ? "^T" : ""),
        {random(a, 1), random(b, 2)},
        [&](const std::vector<Tensor>& t) -> std::vector<Tensor> {
          return {op::matmul(t[0], t[1], transpose_b)};
        },
        [&](const std::vector<Host>& h) { return reference(h, transpose_b); }, options);
  }
}

TEST(Matmul, Shapes) {
  check({1, 1}, {1, 1}, false);
  check({3, 7}, {7, 5}, false);
  check({12, 16}, {16, 20}, false);
  check({33, 36}, {36, 68}, false);
  check({21, 12}, {12, 64}, false);
  check({2, 3, 9, 12}, {2, 3, 12, 8}, false);
  check({5, 4, 3}, {5, 3, 2}, false);
}

TEST(Matmul, TransposedA) {
  const std::pair<Shape, Shape> cases[] = {
      {{1, 1}, {1, 1}}, {{7, 3}, {7, 5}}, {{2, 3, 40, 12}, {2, 3, 40, 8}}, {{5, 33, 36}, {5, 33, 68}}};
  for (const auto& [a, b] : cases) {
    for (const char* variant : {"simd", "panels", "gpu"}) {
      const VariantOverride force("matmul", variant, VariantOverride::Where::it_fits);
      CheckOptions options;
      options.max_probes = 8;
      check_op(
          fmt::format("matmul_tn {} {} {}", variant, a.str(), b.str()), {random(a, 1), random(b, 2)},
          [](const std::vector<Tensor>& t) -> std::vector<Tensor> { return {op::matmul_tn(t[0], t[1])}; },
          [](const std::vector<Host>& h) {
            Host t = h[0];
            const size_t k = static_cast<size_t>(t.shape[-2]), m = static_cast<size_t>(t.shape[-1]);
            std::swap(t.shape[-2], t.shape[-1]);
            for (size_t i = 0; i < t.data.size(); ++i)
              t[i / (k * m) * k * m + i % m * k + i / m % k] = h[0][i];
            return reference({t, h[1]}, false);
          },
          options);
    }
  }
  EXPECT_THROW(op::matmul_tn(Tensor::zeros(device(), {2, 3}), Tensor::zeros(device(), {3, 3})), Error);
  EXPECT_EQ(op::matmul_tn(Tensor::zeros(device(), {0, 3}), Tensor::zeros(device(), {0, 2})).to_host(),
            std::vector<float>(6));
}

TEST(Matmul, TransposedB) {
  check({1, 3}, {1, 3}, true);
  check({17, 8}, {13, 8}, true);
  check({40, 64}, {36, 64}, true);
  check({2, 3, 8, 4}, {2, 3, 24, 4}, true);
}

TEST(Matmul, EmptyContraction) {
  Device& d = device();
  const Tensor c = op::matmul(Tensor::zeros(d, {2, 0}), Tensor::zeros(d, {0, 3}));
  EXPECT_EQ(c.to_host(), std::vector<float>(6, 0.0f));
}

TEST(Matmul, RejectsShapes) {
  Device& d = device();
  EXPECT_THROW(op::matmul(Tensor::zeros(d, {2, 3}), Tensor::zeros(d, {4, 5})), Error);
  EXPECT_THROW(op::matmul(Tensor::zeros(d, {2, 3, 4}), Tensor::zeros(d, {3, 4, 5})), Error);
}

struct EngineCase {
  GemmForm form;
  int64_t m, n, k, batch;
  bool padded;  // rows of A and C lie 4 elements further apart than they are long (rounded up to 4)
};

// Strides, offsets, alpha, accumulation, and that nothing outside C's rows is written.
void check_engine(const EngineCase& t) {
  Device& d = device();
  const auto stride = [&](int64_t x) { return t.padded ? (x + 3) / 4 * 4 + 4 : x; };
  const int64_t a_rows = t.form == GemmForm::tn ? t.k : t.m, lda = stride(t.form == GemmForm::tn ? t.m : t.k);
  const int64_t b_rows = t.form == GemmForm::nt ? t.n : t.k, ldb = stride(t.form == GemmForm::nt ? t.k : t.n);
  const int64_t ldc = stride(t.n), offset = 8;
  const Host a = random({offset + t.batch * a_rows * lda}, 1),
             b = random({offset + t.batch * b_rows * ldb}, 2), c = random({offset + t.batch * t.m * ldc}, 3);
  std::vector<double> want = c.data;
  const auto at = [](int64_t i) { return static_cast<size_t>(i); };
  for (int64_t z = 0; z < t.batch; ++z) {
    for (int64_t i = 0; i < t.m; ++i) {
      for (int64_t j = 0; j < t.n; ++j) {
        double sum = 0;
        for (int64_t q = 0; q < t.k; ++q) {
          const int64_t ai = t.form == GemmForm::tn ? q * lda + i : i * lda + q;
          const int64_t bi = t.form == GemmForm::nt ? j * ldb + q : q * ldb + j;
          sum += a[at(offset + z * a_rows * lda + ai)] * b[at(offset + z * b_rows * ldb + bi)];
        }
        want[at(offset + (z * t.m + i) * ldc + j)] += 0.5 * sum;
      }
    }
  }
  for (const char* variant : {"simd", "panels", "gpu"}) {
    const VariantOverride force("matmul", variant, VariantOverride::Where::it_fits);
    const Tensor out = upload(c);
    Gemm g;
    g.form = t.form;
    g.m = t.m, g.n = t.n, g.k = t.k, g.batch = t.batch;
    g.a = {upload(a), lda, a_rows * lda, offset};
    g.b = {upload(b), ldb, b_rows * ldb, offset};
    g.c = {out, ldc, t.m * ldc, offset};
    g.alpha = 0.5f;
    g.accumulate = true;
    gemm(d, g);
    EXPECT_LE(error_of(out.to_host(), want), 2e-5)
        << variant << " form " << static_cast<int>(t.form) << " " << t.m << " " << t.n << " " << t.k;
  }
}

TEST(Matmul, EngineStrides) {
  for (const GemmForm form : {GemmForm::nt, GemmForm::nn, GemmForm::tn}) {
    check_engine({form, 9, 20, 12, 3, true});
    check_engine({form, 34, 8, 16, 1, true});
    check_engine({form, 5, 12, 10, 2, true});
    check_engine({form, 7, 3, 5, 2, false});
    check_engine({form, 20, 36, 24, 2, false});
  }
}

// The tiles of classes of GPUs that the other tests don't reach: edges inside a tile, aligned and unaligned
// rows, all formats of B.
TEST(Matmul, EngineTilesOfGpus) {
  Device& d = device();
  const DeviceClass actual = d.device_class();
  const VariantOverride force("matmul", "gpu");
  for (const DeviceClass cls : {DeviceClass::nvidia, DeviceClass::intel}) {
    d.set_device_class(cls);
    for (const GemmForm form : {GemmForm::nt, GemmForm::nn, GemmForm::tn}) {
      for (const DType type : {DType::f32, DType::f16, DType::bf16}) {
        if (type != DType::f32 && cls != DeviceClass::nvidia) continue;
        const bool wide = type == DType::f32;  // enough tiles for the largest kind
        const int64_t m = wide ? 1030 : 70, n = wide ? 2052 - (form == GemmForm::nn) : 68, k = 20;
        const int64_t lda = form == GemmForm::tn ? (m + 3) / 4 * 4 : k, ldb = form == GemmForm::nt ? k : n;
        const Host a = random({(form == GemmForm::tn ? k : m) * lda}, 1),
                   b = random({(form == GemmForm::nt ? n : k) * ldb}, 2);
        const std::vector<float> b_values(b.data.begin(), b.data.end());
        const Tensor bt = Tensor::from(d, b_values, {static_cast<int64_t>(b_values.size())}, type);
        const std::vector<float> b_kept = bt.to_host();
        const Tensor c = Tensor::full(d, {m, n}, NAN);
        Gemm g;
        g.form = form;
        g.m = m, g.n = n, g.k = k;
        g.a = {upload(a), lda}, g.b = {bt, ldb}, g.c = {c, n};
        gemm(d, g);
        std::vector<double> want(static_cast<size_t>(m * n));
        const auto at = [](int64_t i) { return static_cast<size_t>(i); };
        for (int64_t i = 0; i < m; ++i) {
          for (int64_t q = 0; q < k; ++q) {
            const double x = a[at(form == GemmForm::tn ? q * lda + i : i * lda + q)];
            for (int64_t j = 0; j < n; ++j) {
              want[at(i * n + j)] +=
                  x * static_cast<double>(b_kept[at(form == GemmForm::nt ? j * ldb + q : q * ldb + j)]);
            }
          }
        }
        EXPECT_LE(error_of(c.to_host(), want), 2e-5)
            << name(cls) << " form " << static_cast<int>(form) << " " << name(type);
      }
    }
  }
  d.set_device_class(actual);
}

TEST(Matmul, EngineSplitsLargeOutputs) {  // more bytes than one binding may have
  Device& d = device();
  const int64_t limit = static_cast<int64_t>(d.caps().max_storage_buffer_range), n = 256, k = 4;
  if (limit > 256ll << 20) return;
  const int64_t m = limit / 4 / n + 65;
  const Host a = random({m, k}, 1), b = random({n, k}, 2);
  const VariantOverride force("matmul", "simd");
  const Tensor c = op::matmul(upload(a), upload(b), true);
  for (const int64_t begin : {int64_t{0}, m / 64 * 64 - 128, m / 64 * 64}) {
    const int64_t rows = std::min<int64_t>(4, m - begin);
    std::vector<double> want(static_cast<size_t>(rows * n));
    for (size_t i = 0; i < want.size(); ++i) {
      for (size_t q = 0; q < 4; ++q)
        want[i] += a[(static_cast<size_t>(begin) + i / 256) * 4 + q] * b[i % 256 * 4 + q];
    }
    EXPECT_LE(error_of(c.slice(0, begin, rows).to_host(), want), 2e-5) << begin;
  }
}

TEST(Matmul, EngineSplitsLongContractions) {
  Device& d = device();
  for (const bool accumulate : {false, true}) {
    const int64_t m = 6, n = 8, k = 1290;
    const Host a = random({k, 8}, 1), b = random({k, n}, 2), c = random({m, n}, 3);
    std::vector<double> want = accumulate ? c.data : std::vector<double>(c.data.size());
    for (size_t i = 0; i < want.size(); ++i) {
      for (size_t q = 0; q < static_cast<size_t>(k); ++q) want[i] += a[q * 8 + i / 8] * b[q * 8 + i % 8];
    }
    for (const char* variant : {"simd", "panels", "gpu"}) {
      const VariantOverride force("matmul", variant, VariantOverride::Where::it_fits);
      const Tensor out = upload(c);
      Gemm g;
      g.form = GemmForm::tn;
      g.m = m, g.n = n, g.k = k;
      g.a = {upload(a), 8}, g.b = {upload(b), n}, g.c = {out, n};
      g.accumulate = accumulate;
      gemm(d, g);
      EXPECT_LE(error_of(out.to_host(), want), 2e-5) << variant;
    }
  }
}

}  // namespace
}  // namespace vkflux::test
