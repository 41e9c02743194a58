#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "autograd/ops.h"
#include "tests/harness/gpu.h"
#include "tests/harness/op_check.h"
#include "vk/error.h"

namespace vkflux::test {
namespace {

std::vector<float> awkward_values() {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  std::vector<float> v = {0.0f,         -0.0f,        1.0f,       -2.5f,      65504.0f,    65519.9f,
                          65520.0f,     1e30f,        -1e30f,     kInf,       -kInf,       0x1p-14f,
                          0x1p-24f,     0x1p-25f,     0x1.8p-25f, 0x1.8p-24f, 0x1p-26f,    1e-40f,
                          0x1.ffcp-15f, 0x1.ffep-15f, 2049.0f,    2051.0f,    1.00390625f, 3.14159265f};
  for (double x : random(Shape{40}, 9, 1e-6).data) v.push_back(static_cast<float>(x));
  for (double x : random(Shape{41}, 8, 100).data) v.push_back(static_cast<float>(x));
  return v;
}

std::vector<uint16_t> halves(const Tensor& t) {
  const std::vector<uint8_t> raw = t.to_host_bytes();
  std::vector<uint16_t> out(raw.size() / 2);
  std::memcpy(out.data(), raw.data(), raw.size());
  return out;
}

TEST(Cast, RoundsLikeTheHost) {
  const std::vector<float> v = awkward_values();
  for (size_t n : {size_t{1}, size_t{5}, v.size()}) {
    const std::vector<float> part(v.begin(), v.begin() + static_cast<std::ptrdiff_t>(n));
    const Tensor x = Tensor::from(device(), part, Shape{static_cast<int64_t>(n)});
    const std::vector<uint16_t> f16 = halves(op::cast(x, DType::f16)),
                                bf16 = halves(op::cast(x, DType::bf16));
    for (size_t i = 0; i < n; ++i) {
      EXPECT_EQ(f16[i], to_f16(v[i])) << v[i];
      EXPECT_EQ(bf16[i], to_bf16(v[i])) << v[i];
    }
  }
}

TEST(Cast, EverySixteenBitValueWidensExactly) {
  std::vector<uint16_t> all(65536);
  for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<uint16_t>(i);
  for (DType t : {DType::f16, DType::bf16}) {
    const Tensor x =
        Tensor::from_bytes(device(), std::as_bytes(std::span<const uint16_t>(all)), Shape{65536}, t);
    const std::vector<float> y = op::cast(x, DType::f32).to_host();
    for (size_t i = 0; i < all.size(); ++i) {
      const float want = t == DType::f16 ? from_f16(all[i]) : from_bf16(all[i]);
      ASSERT_TRUE(std::isnan(want) ? std::isnan(y[i]) : y[i] == want) << name(t) << " " << i;
    }
  }
}

TEST(Cast, BetweenSixteenBitTypesAndOfViews) {
  const std::vector<float> v = {1, 2.5f, -3, 4, 5, 6};
  const Tensor x = Tensor::from(device(), v, Shape{2, 3});
  EXPECT_EQ(op::cast(op::cast(x, DType::f16), DType::bf16).to_host(), v);
  EXPECT_EQ(op::cast(x.slice(1, 1, 2), DType::bf16).to_host(), (std::vector<float>{2.5f, -3, 5, 6}));
  EXPECT_EQ(op::cast(Tensor::zeros(device(), Shape{0}), DType::f16).numel(), 0);
  EXPECT_THROW(op::cast(x, DType::i32), Error);
}

TEST(Cast, ToItselfPassesTheGradient) {
  check_op(
      "cast", {random(Shape{7}, 1)},
      [](const auto& in) { return std::vector<Tensor>{op::cast(in[0], DType::f32)}; },
      [](const auto& in) { return std::vector<Host>{in[0]}; });
}

}  // namespace
}  // namespace vkflux::test
