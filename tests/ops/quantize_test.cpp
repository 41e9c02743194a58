#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "autograd/blocks.h"
#include "autograd/ops.h"
#include "autograd/packed.h"
#include "autograd/run.h"
#include "model/io/tensor_source.h"
#include "tests/harness/expect_error.h"
#include "tests/harness/gpu.h"
#include "tests/harness/op_check.h"
#include "vk/error.h"

namespace vkflux::test {
namespace {

constexpr DType kPacked[] = {DType::f8_e4m3, DType::f8_e5m2, DType::q4_0, DType::q4_1,
                             DType::q5_0,    DType::q5_1,    DType::q8_0, DType::q2_k,
                             DType::q3_k,    DType::q4_k,    DType::q5_k, DType::q6_k};
constexpr DType kBlocks[] = {DType::q4_0, DType::q4_1, DType::q5_0, DType::q5_1, DType::q8_0,
                             DType::q2_k, DType::q3_k, DType::q4_k, DType::q5_k, DType::q6_k};
const std::string kData = VKFLUX_SOURCE_DIR "/tests/data/gguf/";

std::string file_name(DType t) {
  std::string out(name(t));
  std::transform(out.begin(), out.end(), out.begin(), [](unsigned char c) { return std::toupper(c); });
  return out;
}

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
  std::vector<std::byte> out(file_bytes(t, s.numel()));
  uint64_t x = seed;
  for (std::byte& b : out) {
    x = x * 6364136223846793005u + 1442695040888963407u;
    b = static_cast<std::byte>(x >> 56);
  }
  const BlockType& type = block_type(t);
  QuantBlock block;
  for (size_t i = 0, n = 0; i < out.size(); i += static_cast<size_t>(type.bytes), ++n) {
    type.split(&out[i], block);
    block.d = to_f16((n % 3 == 1 ? -1.0f : 1.0f) * (0.01f + static_cast<float>(n % 97) * 1e-3f));
    if (block.dmin) block.dmin = to_f16(0.02f + static_cast<float>(n % 89) * 1e-3f);
    type.join(block, &out[i]);
  }
  return out;
}

std::vector<uint32_t> bits(const std::vector<float>& v) {
  std::vector<uint32_t> out(v.size());
  std::memcpy(out.data(), v.data(), 4 * v.size());
  return out;
}

// The host's decoder is that of the files' makers to the bit, and the device's is the host's.
TEST(Quantize, BlocksDecodeToTheBitAsTheirMakersDo) {
  const auto file = io::open_tensors(kData + "blocks.gguf"),
             want = io::open_tensors(kData + "blocks.safetensors");
  for (const DType t : kBlocks) {
    const std::string name = file_name(t);
    const auto& dims = file->info(name).shape;
    const Shape shape{dims[0], dims[1]};
    const std::vector<std::byte> packed = pack_rows(t, file->read_bytes(name), shape);
    const std::vector<uint32_t> values = bits(want->read_f32(name));
    EXPECT_EQ(bits(decode_rows(t, packed, shape)), values) << name;
    EXPECT_EQ(bits(op::dequantize(Tensor::from_bytes(device(), packed, shape, t)).to_host()), values) << name;
  }
}

TEST(Quantize, BlocksOfFilesDecode) {
  for (const DType t : kBlocks) {
    const bool small = block_values(t) == 32;
    for (const Shape& s : small ? std::vector<Shape>{{3, 32}, {2, 192}, {3, 512}, {5, 608}}
                                : std::vector<Shape>{{1, 256}, {5, 768}}) {
      SCOPED_TRACE(fmt::format("{} {}", name(t), s.str()));
      const std::vector<std::byte> blocks = file_blocks(t, s, 7);
      const std::vector<std::byte> packed = pack_rows(t, blocks, s);
      EXPECT_EQ(packed.size() % 16, 0u);
      EXPECT_EQ(unpack_rows(t, packed, s), blocks);
      const Tensor w = Tensor::from_bytes(device(), packed, s, t);
      std::vector<float> want(static_cast<size_t>(s.numel()));
      decode_blocks(t, blocks, want);
      EXPECT_EQ(bits(w.to_host()), bits(want));
      EXPECT_EQ(bits(op::dequantize(w).to_host()), bits(want));
      if (t == DType::q8_0 || t == DType::q5_k) {
        const std::vector<double> near(want.begin(), want.end());
        EXPECT_LT(error_of(op::dequantize(w, DType::f16).to_host(), near), 5e-4);
        EXPECT_LT(error_of(op::dequantize(w, DType::bf16).to_host(), near), 4e-3);
      }
      if (s[0] >= 3) {
        const std::vector<float> rows(want.begin() + s[1], want.begin() + 3 * s[1]);
        EXPECT_EQ(w.slice(0, 1, 2).to_host(), rows);
        EXPECT_EQ(op::dequantize(w.slice(0, 1, 2)).to_host(), rows);
      }
    }
  }
}

// A row has a scale of its own: parts of a matrix may have been scaled differently.
TEST(Quantize, ScaledFp8) {
  for (const DType t : {DType::f8_e4m3, DType::f8_e5m2}) {
    for (const int64_t k : {1, 6, 16, 36}) {
      std::vector<std::byte> packed, codes(static_cast<size_t>(2 * k));
      for (size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<std::byte>(i * 37 % 0x7b);
      std::vector<float> want;
      for (const float scale : {0.0123f, 3.7e-4f}) {
        const auto part = pack_rows(t, codes, {2, k}, scale);
        packed.insert(packed.end(), part.begin(), part.end());
        for (const std::byte c : codes) want.push_back(from_f8(t, std::to_integer<uint8_t>(c)) * scale);
      }
      const Tensor w = Tensor::from_bytes(device(), packed, {4, k}, t);
      EXPECT_EQ(bits(w.to_host()), bits(want)) << name(t) << k;
      EXPECT_EQ(bits(op::dequantize(w).to_host()), bits(want)) << name(t) << k;
    }
  }
}

// The bytes of the reference where it has an encoder.
TEST(Quantize, EncodesBlocksAsTheirMakersDo) {
  const auto file = io::open_tensors(kData + "encoded.safetensors");
  const std::vector<float> values = file->read_f32("values");
  for (const DType t : {DType::q4_0, DType::q4_1, DType::q5_0, DType::q5_1, DType::q8_0}) {
    std::vector<std::byte> got(file_bytes(t, static_cast<int64_t>(values.size())));
    encode_blocks(t, values, got);
    EXPECT_EQ(got, file->read_bytes(file_name(t))) << name(t);
  }
}

// Root of the mean squared error for normally distributed values, in units of their deviation. The limits are
// some percent above what was measured.
TEST(Quantize, EncodersOfKTypesAreNearTheValues) {
  const Host x = random({64, 256}, 41, 0.02);
  const std::vector<float> values(x.data.begin(), x.data.end());
  for (const auto& [t, limit] : std::vector<std::pair<DType, double>>{{DType::q2_k, 0.27},
                                                                      {DType::q3_k, 0.145},
                                                                      {DType::q4_k, 0.072},
                                                                      {DType::q5_k, 0.036},
                                                                      {DType::q6_k, 0.0175}}) {
    std::vector<std::byte> blocks(file_bytes(t, x.shape.numel()));
    encode_blocks(t, values, blocks);
    std::vector<float> w(values.size());
    decode_blocks(t, blocks, w);
    double sum = 0;
    for (size_t i = 0; i < w.size(); ++i) sum += std::pow(static_cast<double>(w[i]) - x[i], 2);
    const double rms = std::sqrt(sum / static_cast<double>(w.size())) / 0.02;
    EXPECT_LT(rms, limit) << name(t);
    std::vector<float> zero(256), decoded(256, 1.0f);
    blocks.resize(file_bytes(t, 256));
    encode_blocks(t, zero, blocks);
    decode_blocks(t, blocks, decoded);
    EXPECT_EQ(decoded, zero) << name(t);
  }
}

TEST(Quantize, ScalesThatAreNotFiniteAreFound) {
  for (const DType t : kBlocks) {
    const Shape s{3, 512};
    std::vector<std::byte> blocks = file_blocks(t, s, 9);
    EXPECT_FALSE(first_not_finite(t, blocks)) << name(t);
    const BlockType& type = block_type(t);
    QuantBlock block;
    std::byte* second = blocks.data() + type.bytes;
    type.split(second, block);
    (block.dmin && t != DType::q4_0 ? block.dmin : block.d) = 0xfc00;
    type.join(block, second);
    EXPECT_EQ(first_not_finite(t, blocks), 1) << name(t);
  }
  std::vector<std::byte> f8(5000, std::byte{0x7e});
  EXPECT_FALSE(first_not_finite(DType::f8_e4m3, f8));
  EXPECT_EQ(first_not_finite(DType::f8_e5m2, f8), 0);
  f8[4200] = std::byte{0xff};
  EXPECT_EQ(first_not_finite(DType::f8_e4m3, f8), 4200);
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
