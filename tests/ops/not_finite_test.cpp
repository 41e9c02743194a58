// What isn't finite stays so through every op and every structure of kernels, so that whoever checks results
// sees it; finite values beyond the range of f16 become its largest number, and are counted.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <functional>
#include <optional>

#include "autograd/ops.h"
#include "autograd/packed.h"
#include "autograd/run.h"
#include "autograd/tape.h"
#include "tests/harness/gpu.h"
#include "tests/harness/op_check.h"

namespace vkflux::test {
namespace {

using Floats = std::vector<float>;
using Where = VariantOverride::Where;

// The usual NaN, the one of NVIDIA's arithmetic, a negative one, and one that signals.
constexpr uint32_t kNans[] = {0x7fc00000, 0x7fffffff, 0xffffffff, 0x7f800001};

Floats floats(const Shape& shape, uint64_t seed, double scale = 1) {
  const Host h = random(shape, seed, scale);
  return {h.data.begin(), h.data.end()};
}

Tensor with(Floats values, const Shape& shape, size_t at, float x) {
  values[at] = x;
  return Tensor::from(device(), values, shape);
}

size_t nans(const Floats& x) {
  return static_cast<size_t>(std::count_if(x.begin(), x.end(), [](float v) { return std::isnan(v); }));
}

TEST(NotFinite, RoundingOnTheHost) {
  for (const uint32_t bits : kNans) {
    const float x = std::bit_cast<float>(bits);
    EXPECT_TRUE(std::isnan(from_f16(to_f16(x)))) << std::hex << bits;
    EXPECT_TRUE(std::isnan(from_bf16(to_bf16(x)))) << std::hex << bits;
    for (const DType t : {DType::f8_e4m3, DType::f8_e5m2})
      EXPECT_TRUE(std::isnan(from_f8(t, to_f8(t, x)))) << std::hex << bits;
  }
  EXPECT_EQ(from_f16(to_f16(-INFINITY)), -INFINITY);
  EXPECT_EQ(from_bf16(to_bf16(INFINITY)), INFINITY);
  EXPECT_EQ(from_f8(DType::f8_e5m2, to_f8(DType::f8_e5m2, -INFINITY)), -INFINITY);
  EXPECT_TRUE(std::isnan(from_f8(DType::f8_e4m3, to_f8(DType::f8_e4m3, INFINITY))));
}

TEST(NotFinite, RoundingOnTheDevice) {
  const Shape shape{2, 256};
  for (const DType t : {DType::f16, DType::bf16, DType::f8_e4m3, DType::f8_e5m2, DType::q8_0, DType::q4_k}) {
    for (const float x : {std::bit_cast<float>(kNans[0]), std::bit_cast<float>(kNans[1]), INFINITY}) {
      const Tensor in = with(floats(shape, 1), shape, 70, x);
      const Floats y = (is_packed(t) ? op::quantize(in, t) : op::cast(in, t)).to_host();
      EXPECT_FALSE(std::isfinite(y[70])) << name(t) << " " << x;
      for (size_t i = 256; i < y.size(); ++i) EXPECT_TRUE(std::isfinite(y[i])) << name(t) << " " << i;
    }
  }
}

TEST(NotFinite, Functions) {
  const Shape shape{4, 8};
  for (const char* form : {"simd", "gpu"}) {
    const VariantOverride force("*", form, Where::it_fits);
    for (int f = 0; f <= static_cast<int>(op::Unary::abs); ++f) {
      const Tensor x = with(floats(shape, 2), shape, 13, NAN);
      Tape tape;
      tape.watch(x);
      Tensor y;
      {
        const auto scope = tape.record();
        y = op::unary(x, static_cast<op::Unary>(f));
      }
      EXPECT_TRUE(std::isnan(y.to_host()[13])) << form << " function " << f;
      EXPECT_TRUE(std::isnan(tape.backward(y, Tensor::full(device(), shape, 1)).of(x).to_host()[13]))
          << form << " slope of function " << f;
    }
  }
}

TEST(NotFinite, Rows) {
  const Shape shape{3, 32};
  const Tensor x = with(floats(shape, 3), shape, 40, NAN);
  using RowOp = std::function<Tensor(const Tensor&)>;
  const std::pair<const char*, RowOp> ops[] = {
      {"softmax", [](const Tensor& t) { return op::softmax(t); }},
      {"l2norm", [](const Tensor& t) { return op::l2norm(t); }},
      {"soft_l2norm", [](const Tensor& t) { return op::soft_l2norm(t); }},
      {"feature_map", [](const Tensor& t) { return op::feature_map(t, true); }},
      {"layer_norm", [](const Tensor& t) { return op::layer_norm(t, {}, {}, 1e-6f); }},
      {"feature_network", [](const Tensor& t) {
         const Tensor w = upload(random({32, 32}, 4, 0.2)), b = Tensor::zeros(t.device(), {32});
         return op::feature_network(t, {w, w}, {b, b}, true);
       }}};
  for (const char* form : {"simd", "gpu"}) {
    const VariantOverride force("*", form, Where::it_fits);
    for (const auto& [name, f] : ops) {
      const Floats y = f(x).to_host();
      for (size_t i = 0; i < y.size(); ++i)
        EXPECT_EQ(std::isnan(y[i]), i / 32 == 1) << form << " " << name << " " << i;
    }
    EXPECT_TRUE(std::isnan(op::rms_norm(x, {}, 1e-6f).to_host()[40]));
    const Floats y = op::feature_map(x, false).to_host();
    EXPECT_TRUE(std::isnan(y[40]) && nans(y) == 1) << form;
  }
}

TEST(NotFinite, KernelRegression) {
  const Shape shape{2, 3, 12};  // rows of 8 values and their denominator
  for (const char* form : {"simd", "gpu"}) {
    const VariantOverride force("*", form, Where::it_fits);
    const auto q = op::kernel_quotient(with(floats(shape, 5), shape, 2 * 12 + 8, NAN), 8);
    EXPECT_TRUE(std::isnan(q.den.to_host()[2]));
    const Floats y = q.y.to_host();
    for (size_t i = 0; i < y.size(); ++i) EXPECT_EQ(std::isnan(y[i]), i / 8 == 2) << i;
    EXPECT_TRUE(std::isnan(op::min_all(q.den).item()));

    const Shape branch{1, 1, 5, 8};
    const Tensor a = upload(random(branch, 6)), b = upload(random(branch, 7)),
                 alpha = Tensor::full(device(), {}, 0.5f);
    EXPECT_EQ(nans(op::hkr_blend(a, b, {}, Tensor::full(device(), {}, NAN)).out.to_host()), 40u) << form;
    // One token's NaN is in the head's mean disagreement, and so in all gates.
    EXPECT_EQ(nans(op::hkr_blend(with(floats(branch, 6), branch, 17, NAN), b, {}, alpha).gate.to_host()), 5u);
  }
  for (const int64_t n : {int64_t{1}, int64_t{700}}) {
    for (const size_t at : {size_t{0}, static_cast<size_t>(n - 1)})
      EXPECT_TRUE(std::isnan(op::min_all(with(floats({n}, 8), {n}, at, NAN)).item())) << n << " " << at;
  }
}

bool takes_f16(const char* kernel, const char* variant) {
  return device().kernels().available(kernel, variant);
}

// A NaN of q is in its row of the answer, one of k or v in every row.
TEST(NotFinite, Attention) {
  const Shape shape{1, 1, 70, 16};
  for (const std::string form : {"composed", "flash", "panels", "coop"}) {
    if (form == "coop" && !takes_f16("flash_attention_coop", "f16")) continue;
    if (form == "panels" && !device().caps().simd()) continue;
    const VariantOverride force("attention", form);
    for (int which = 0; which < 3; ++which) {
      Tensor in[3];
      for (int i = 0; i < 3; ++i) {
        in[i] = i == which ? with(floats(shape, 10), shape, 67 * 16 + 5, NAN)
                           : upload(random(shape, 20 + static_cast<uint64_t>(i)));
      }
      op::AttentionOptions o;
      o.f16 = form == "coop";
      Tape tape;
      for (const Tensor& t : in) tape.watch(t);
      Tensor y;
      {
        const auto scope = tape.record();
        y = op::attention(in[0], in[1], in[2], o);
      }
      const Floats host = y.to_host();
      for (size_t i = 0; i < host.size(); ++i) {
        const bool hit = which == 0 ? i / 16 == 67 : which == 1 || i % 16 == 5;
        EXPECT_EQ(std::isnan(host[i]), hit) << form << " input " << which << " element " << i;
      }
      const Grads g = tape.backward(y, upload(random(shape, 30)));
      for (int i = 0; i < 3; ++i) {  // that of v doesn't depend on v
        EXPECT_EQ(nans(g.of(in[i]).to_host()) > 0, i != 2 || which != 2) << form << " input " << which;
      }
    }
  }
}

TEST(NotFinite, Products) {
  for (const DType type : {DType::f32, DType::f16, DType::bf16, DType::q8_0}) {
    for (const std::string form : {"simd", "gpu", "panels", "matvec", "coop"}) {
      const VariantOverride force("matmul", form, Where::it_fits);
      const Tensor dense = upload(random({8, 32}, 2, 0.3));
      const Tensor w = type == DType::f32 ? dense
                       : is_packed(type)  ? op::quantize(dense, type)
                                          : op::cast(dense, type);
      for (const uint32_t bits : kNans) {
        const Tensor x = with(floats({5, 32}, 1), {5, 32}, 2 * 32 + 9, std::bit_cast<float>(bits));
        const Floats y = op::linear(x, w).to_host();
        for (size_t i = 0; i < y.size(); ++i)
          EXPECT_EQ(std::isnan(y[i]), i / 8 == 2) << form << " " << name(type) << " " << i;
      }
      const Floats y = op::linear(with(floats({5, 32}, 1), {5, 32}, 9, INFINITY), w).to_host();
      EXPECT_FALSE(std::isfinite(y[0])) << form << " " << name(type);
    }
  }
}

TEST(Saturation, CastsCount) {
  Device& d = device();
  d.saturated().take();
  for (const int64_t n : {3, 8, 13, 5000}) {
    Floats x = floats({n}, 1);
    x[0] = 65519.9f, x[1] = -65520, x[2] = 1e30f;
    if (n > 3) x[3] = INFINITY, x[4] = NAN, x[static_cast<size_t>(n - 1)] = 7e4f;
    const Tensor t = Tensor::from(d, x, {n});
    op::cast(t, DType::bf16);
    EXPECT_EQ(d.saturated().take(), 0u);
    op::cast(t, DType::f16);
    op::cast(t, DType::f16);
    EXPECT_EQ(d.saturated().take(), n > 3 ? 6u : 4u) << n;
    EXPECT_EQ(d.saturated().take(), 0u);
  }
  // More calls than there are places.
  const Tensor t = Tensor::full(d, {9}, 1e6f);
  for (int i = 0; i < 600; ++i) op::cast(t, DType::f16);
  EXPECT_EQ(d.saturated().take(), 5400u);
}

// Each element counts once, however many workgroups read it.
TEST(Saturation, CooperativeMatricesCount) {
  Device& d = device();
  d.saturated().take();
  const int64_t m = 150, n = 300, k = 52;
  Floats x = floats({m, k}, 1), w = floats({n, k}, 2);
  x[0] = 1e5f, x[149 * 52 + 51] = -1e9f, x[77] = INFINITY, x[60 * 52 + 9] = 65519;
  const bool there = takes_f16("matmul_coop", "f16");
  std::optional<VariantOverride> force;
  if (there) force.emplace("matmul", "coop");
  op::linear(Tensor::from(d, x, {m, k}), Tensor::from(d, w, {n, k}, DType::f16));
  EXPECT_EQ(d.saturated().take(), there ? 2u : 0u);
}

TEST(Saturation, AttentionCounts) {
  Device& d = device();
  d.saturated().take();
  const bool there = takes_f16("flash_attention_coop", "f16");
  std::optional<VariantOverride> force;
  if (there) force.emplace("attention", "coop");
  const Shape shape{2, 2, 130, 16};
  Floats q = floats(shape, 1), k = floats(shape, 2), v = floats(shape, 3);
  q[3] = 1e5f, k[130 * 16 + 2] = -1e6f, v[5] = 7e4f, v[4 * 130 * 16 - 1] = 1e38f;
  for (const bool causal : {false, true}) {
    op::AttentionOptions o;
    o.f16 = true;
    o.causal = causal;
    op::attention(Tensor::from(d, q, shape), Tensor::from(d, k, shape), Tensor::from(d, v, shape), o);
    EXPECT_EQ(d.saturated().take(), there ? 4u : 0u) << causal;
  }
}

}  // namespace
}  // namespace vkflux::test
