#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "autograd/ops.h"
#include "autograd/packed.h"
#include "autograd/run.h"
#include "tests/harness/expect_error.h"
#include "tests/harness/gpu.h"
#include "tests/harness/op_check.h"
#include "vk/error.h"

namespace vkflux::test {
namespace {

constexpr DType kPacked[] = {DType::f8_e4m3, DType::f8_e5m2, DType::q8_0, DType::q4_k};

std::vector<std::byte> bytes_of(const Tensor& t) {
  const std::vector<uint8_t> raw = t.to_host_bytes();
  const auto bytes = std::as_bytes(std::span(raw));
  return {bytes.begin(), bytes.end()};
}

// The finite code nearest to x, by trying all of them.
double nearest_f8(DType t, double x) {
  double best = 0;
  uint32_t best_code = 0;
  for (uint32_t code = 0; code < 256; ++code) {
    const double v = static_cast<double>(from_f8(t, static_cast<uint8_t>(code)));
    if (!std::isfinite(v)) continue;
    const double d = std::abs(v - x), least = std::abs(best - x);
    if (d < least || (d == least && code % 2 == 0 && best_code % 2 == 1)) best = v, best_code = code;
  }
  return best;
}

TEST(Quantize, Fp8OnTheHostIsTheNearestCode) {
  EXPECT_EQ(from_f8(DType::f8_e4m3, 0x7e), 448.0f);
  EXPECT_EQ(from_f8(DType::f8_e4m3, 0x01), 0x1p-9f);
  EXPECT_EQ(from_f8(DType::f8_e5m2, 0x7b), 57344.0f);
  for (const DType t : {DType::f8_e4m3, DType::f8_e5m2}) {
    for (const double scale : {1e-3, 0.03, 1.0, 200.0, 3e4}) {
      for (const double x : random({64}, 3, scale).data) {
        EXPECT_EQ(static_cast<double>(from_f8(t, to_f8(t, static_cast<float>(x)))), nearest_f8(t, x)) << x;
      }
    }
    for (uint32_t code = 0; code < 256; ++code) {
      const float v = from_f8(t, static_cast<uint8_t>(code));
      if (!std::isfinite(v)) continue;
      EXPECT_EQ(to_f8(t, v), code);
      // Halfway to the next value: the even code.
      const float next = from_f8(t, static_cast<uint8_t>(code + 1));
      if ((code & 0x7f) < 0x7b) {
        EXPECT_EQ(to_f8(t, (v + next) / 2), code + code % 2);
      }
    }
    EXPECT_TRUE(std::isnan(from_f8(t, to_f8(t, std::numeric_limits<float>::quiet_NaN()))));
    EXPECT_EQ(from_f8(t, to_f8(t, -1e9f)), t == DType::f8_e4m3 ? -448.0f : -57344.0f);
  }
}

TEST(Quantize, Fp8OnTheDeviceIsTheHosts) {
  std::vector<float> v{0,          -0.0f,    448,       449,       463.9f,       480,       1e9f,
                       -1e9f,      57344,    61439,     1e-9f,     0x1p-10f,     0x1.8p-9f, 0x1p-17f,
                       0x1.8p-16f, INFINITY, -INFINITY, 0x1.fp-7f, 0x1.fffp-15f, 1e-40f};
  for (const double scale : {1e-5, 1e-3, 0.03, 300.0})
    for (const double x : random({50}, 5, scale).data) v.push_back(static_cast<float>(x));
  for (const DType t : {DType::f8_e4m3, DType::f8_e5m2}) {
    for (const int64_t k : {1, 7, 20, 110}) {
      const Shape shape{static_cast<int64_t>(v.size()) / k, k};
      const std::span<const float> part(v.data(), static_cast<size_t>(shape.numel()));
      const Tensor w = op::quantize(Tensor::from(device(), part, shape), t);
      std::vector<uint8_t> want;
      for (const float x : part) want.push_back(to_f8(t, x));
      const std::vector<std::byte> got = unpack_rows(t, bytes_of(w), shape);
      ASSERT_EQ(got.size(), want.size());
      for (size_t i = 0; i < want.size(); ++i)
        EXPECT_EQ(std::to_integer<uint8_t>(got[i]), want[i]) << part[i];
    }
  }
}

TEST(Quantize, EveryFp8CodeDecodes) {
  for (const DType t : {DType::f8_e4m3, DType::f8_e5m2}) {
    std::vector<std::byte> codes(256);
    for (size_t i = 0; i < 256; ++i) codes[i] = static_cast<std::byte>(i);
    for (const Shape& s : {Shape{8, 32}, Shape{64, 4}, Shape{128, 2}}) {
      const Tensor w = Tensor::from_bytes(device(), pack_rows(t, codes, s), s, t);
      const std::vector<float> got = op::dequantize(w).to_host(), host = w.to_host();
      for (size_t i = 0; i < 256; ++i) {
        const float want = from_f8(t, static_cast<uint8_t>(i));
        EXPECT_TRUE(std::isnan(want) ? std::isnan(got[i]) : got[i] == want) << name(t) << " " << i;
        EXPECT_TRUE(std::isnan(want) ? std::isnan(host[i]) : host[i] == want) << name(t) << " " << i;
      }
    }
  }
}

// Blocks of random bytes with finite scales, as in a file.
std::vector<std::byte> file_blocks(DType t, const Shape& s, uint64_t seed) {
  const size_t block = t == DType::q8_0 ? 34 : 144;
  std::vector<std::byte> out(static_cast<size_t>(s.numel() / block_values(t)) * block);
  uint64_t x = seed;
  for (std::byte& b : out) {
    x = x * 6364136223846793005u + 1442695040888963407u;
    b = static_cast<std::byte>(x >> 56);
  }
  for (size_t i = 0; i < out.size(); i += block) {
    for (size_t half = 0; half < (t == DType::q8_0 ? 1u : 2u); ++half) {
      const uint16_t d = to_f16(0.01f + static_cast<float>(i % 977) * 1e-4f);
      std::memcpy(&out[i + 2 * half], &d, 2);
    }
  }
  return out;
}

// The file format's definition, value by value.
double file_value(DType t, const std::vector<std::byte>& blocks, size_t i) {
  const auto byte = [&](size_t at) { return std::to_integer<int>(blocks[at]); };
  const auto f16 = [&](size_t at) {
    return static_cast<double>(from_f16(static_cast<uint16_t>(byte(at) | byte(at + 1) << 8)));
  };
  if (t == DType::q8_0) {
    const size_t at = i / 32 * 34;
    return f16(at) * static_cast<int8_t>(byte(at + 2 + i % 32));
  }
  const size_t at = i / 256 * 144, r = i % 256, b = r / 32;
  const auto sc = [&](size_t j) { return byte(at + 4 + j); };
  const int scale = b < 4 ? sc(b) & 63 : (sc(b + 4) & 15) | (sc(b - 4) >> 6) << 4;
  const int least = b < 4 ? sc(b + 4) & 63 : sc(b + 4) >> 4 | (sc(b) >> 6) << 4;
  const int both = byte(at + 16 + 32 * (r / 64) + r % 32), q = b % 2 ? both >> 4 : both & 15;
  return f16(at) * scale * q - f16(at + 2) * least;
}

TEST(Quantize, BlocksOfFilesDecode) {
  for (const auto& [t, s] : std::vector<std::pair<DType, Shape>>{{DType::q8_0, {3, 32}},
                                                                 {DType::q8_0, {2, 192}},
                                                                 {DType::q8_0, {3, 512}},
                                                                 {DType::q8_0, {5, 608}},
                                                                 {DType::q4_k, {1, 256}},
                                                                 {DType::q4_k, {5, 768}}}) {
    SCOPED_TRACE(fmt::format("{} {}", name(t), s.str()));
    const std::vector<std::byte> blocks = file_blocks(t, s, 7);
    const std::vector<std::byte> packed = pack_rows(t, blocks, s);
    EXPECT_EQ(unpack_rows(t, packed, s), blocks);
    const Tensor w = Tensor::from_bytes(device(), packed, s, t);
    std::vector<double> want(static_cast<size_t>(s.numel()));
    for (size_t i = 0; i < want.size(); ++i) want[i] = file_value(t, blocks, i);
    EXPECT_LT(error_of(w.to_host(), want), 1e-6);
    EXPECT_LT(error_of(op::dequantize(w).to_host(), want), 1e-6);
    EXPECT_LT(error_of(op::dequantize(w, DType::f16).to_host(), want), 5e-4);
    EXPECT_LT(error_of(op::dequantize(w, DType::bf16).to_host(), want), 4e-3);
    if (s[0] >= 3) {
      const std::vector<double> rows(want.begin() + s[1], want.begin() + 3 * s[1]);
      EXPECT_LT(error_of(w.slice(0, 1, 2).to_host(), rows), 1e-6);
      EXPECT_LT(error_of(op::dequantize(w.slice(0, 1, 2)).to_host(), rows), 1e-6);
    }
  }
}

TEST(Quantize, Q8IsTheNearestMultiple) {
  for (const Shape& s : {Shape{4, 32}, Shape{3, 192}, Shape{2, 512}, Shape{1, 608}}) {
    Host x = random(s, 11, 0.05);
    for (size_t i = 0; i < 32; ++i) x[i] = i == 3 ? 1e-3 : 0;  // a block of one value
    std::fill(x.data.begin() + 32, x.data.begin() + std::min<std::ptrdiff_t>(64, s.numel()), 0.0);
    const std::vector<float> w = op::quantize(upload(x), DType::q8_0).to_host();
    for (size_t b = 0; b < x.data.size(); b += 32) {
      double most = 0;
      for (size_t i = b; i < b + 32; ++i) most = std::max(most, std::abs(x[i]));
      // Half a step, and where the scale's rounding cut off the largest value.
      const double step = most / 127, bound = step * (0.5 + 127 * 0x1p-11) + 1e-9;
      double worst = 0;
      for (size_t i = b; i < b + 32; ++i) worst = std::max(worst, std::abs(static_cast<double>(w[i]) - x[i]));
      EXPECT_LE(worst, bound) << s.str() << " block " << b / 32;
    }
  }
}

double squared_error(const std::vector<float>& w, const Host& x, size_t begin, size_t count) {
  double sum = 0;
  for (size_t i = begin; i < begin + count; ++i)
    sum += (static_cast<double>(w[i]) - x[i]) * (static_cast<double>(w[i]) - x[i]);
  return sum;
}

// Rounding to sixteen steps from the smallest to the largest value of each 32, with exact scales.
double min_max_error(const Host& x, size_t begin, size_t count) {
  double sum = 0;
  for (size_t b = begin; b < begin + count; b += 32) {
    double low = 0, high = 0;
    for (size_t i = b; i < b + 32; ++i) low = std::min(low, x[i]), high = std::max(high, x[i]);
    const double step = (high - low) / 15;
    for (size_t i = b; i < b + 32; ++i) {
      const double w = low + step * std::round((x[i] - low) / step);
      sum += (w - x[i]) * (w - x[i]);
    }
  }
  return sum;
}

TEST(Quantize, Q4BeatsRoundingBetweenTheExtremes) {
  const Shape s{24, 512};
  for (const int kind : {0, 1, 2}) {
    Host x = random(s, 21, 0.02);
    for (size_t i = 0; i < x.data.size(); ++i) {
      if (kind == 1) x[i] = x[i] * x[i] * x[i] * 400;                                 // long tails
      if (kind == 2) x[i] = std::abs(x[i]) + 0.01 * static_cast<double>(i / 32 % 8);  // all positive
    }
    const std::vector<float> w = op::quantize(upload(x), DType::q4_k).to_host();
    const double error = squared_error(w, x, 0, w.size()), plain = min_max_error(x, 0, w.size());
    EXPECT_LT(error, (kind == 2 ? 1.05 : 0.97) * plain) << kind;
    for (size_t b = 0; b < w.size(); b += 256)  // no block is far off
      EXPECT_LT(squared_error(w, x, b, 256), 1.5 * min_max_error(x, b, 256) + 1e-12) << kind;
  }
}

TEST(Quantize, Q4KeepsWhatItCanHoldExactly) {
  // Values on a grid of the format: d = 1/16, scale 63 in one sub-block, minima of 8 steps.
  Host x{{1, 256}, std::vector<double>(256), true};
  for (size_t i = 0; i < 256; ++i) x[i] = i < 128 ? (static_cast<double>(i * 7 % 16) - 8) * 0.25 : 0;
  const std::vector<float> w = op::quantize(upload(x), DType::q4_k).to_host();
  EXPECT_LT(error_of(w, x.data), 2e-3);
  for (size_t i = 128; i < 256; ++i) EXPECT_EQ(w[i], 0.0f);
  const std::vector<float> zero = op::quantize(Tensor::zeros(device(), {2, 256}), DType::q4_k).to_host();
  EXPECT_EQ(zero, std::vector<float>(512, 0.0f));
}

TEST(Quantize, SameBitsTwice) {
  const Tensor x = upload(random({9, 512}, 31, 0.1));
  for (const DType t : kPacked) EXPECT_EQ(bytes_of(op::quantize(x, t)), bytes_of(op::quantize(x, t)));
}

TEST(Quantize, RefusesWhatItCannotHold) {
  Device& d = device();
  expect_error(ErrorCode::invalid_argument, {"q4_k needs rows of a multiple of 256"}, [&] {
    op::quantize(Tensor::zeros(d, {2, 192}), DType::q4_k);
  });
  expect_error(ErrorCode::invalid_argument, {"q8_0 needs rows of a multiple of 32"}, [&] {
    op::quantize(Tensor::zeros(d, {2, 40}), DType::q8_0);
  });
  expect_error(ErrorCode::invalid_argument, {"matrices only"},
               [&] { op::quantize(Tensor::zeros(d, {256}), DType::q8_0); });
  EXPECT_THROW(op::quantize(Tensor::zeros(d, {2, 32}), DType::f16), Error);
  const Tensor w = op::quantize(Tensor::zeros(d, {2, 64}), DType::q8_0);
  EXPECT_THROW(op::dequantize(Tensor::zeros(d, {2, 32})), Error);
  expect_error(ErrorCode::invalid_argument, {"between rows"}, [&] { w.slice(1, 0, 32); });
  expect_error(ErrorCode::invalid_argument, {"encoded whole"}, [&] { w.view({64, 2}); });
  expect_error(ErrorCode::invalid_argument, {"op::quantize"}, [&] {
    const std::vector<float> v(64);
    Tensor::from(d, std::span<const float>(v), {2, 32}, DType::q8_0);
  });
  EXPECT_EQ(op::quantize(Tensor::zeros(d, {0, 64}), DType::q8_0).numel(), 0);
}

}  // namespace
}  // namespace vkflux::test
