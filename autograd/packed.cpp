#include "autograd/packed.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "autograd/blocks.h"
#include "vk/error.h"

namespace vkflux {
namespace {

bool is_f8(DType t) {
  return t == DType::f8_e4m3 || t == DType::f8_e5m2;
}

void expect_bytes(DType t, const Shape& shape, size_t given, uint64_t wanted) {
  if (given == wanted) return;
  throw Error(ErrorCode::invalid_argument,
              fmt::format("{} bytes given for {} {}, {} are needed", given, name(t), shape.str(), wanted));
}

uint32_t load(const void* p) {
  uint32_t w;
  std::memcpy(&w, p, 4);
  return w;
}
void store(void* p, uint32_t w) {
  std::memcpy(p, &w, 4);
}

constexpr uint32_t mask(int bits) {
  return 0x01010101u * ((1u << bits) - 1);
}

// `bits` bits of each number, from bit `shift` on, as a plane. Words are four numbers, one to a byte.
void put_plane(const uint8_t* q, int count, int bits, int shift, std::byte* plane) {
  const int groups = 8 / bits;  // of four numbers in a word
  for (int w = 0; w < count * bits / 32; ++w) {
    uint32_t word = 0;
    for (int g = 0; g < groups; ++g)
      word |= (load(q + 4 * (w * groups + g)) >> shift & mask(bits)) << (bits * g);
    store(plane + 4 * w, word);
  }
}
void take_plane(const std::byte* plane, int count, int bits, int shift, uint8_t* q) {
  const int groups = 8 / bits;
  for (int w = 0; w < count * bits / 32; ++w) {
    const uint32_t word = load(plane + 4 * w);
    for (int g = 0; g < groups; ++g) {
      uint8_t* to = q + 4 * (w * groups + g);
      store(to, load(to) | (word >> (bits * g) & mask(bits)) << shift);
    }
  }
}

// Bytes of a block's scales in a row.
int scale_bytes(BlockScales s) {
  switch (s) {
    case BlockScales::d:
      return 2;
    case BlockScales::d_and_min:
      return 4;
    case BlockScales::six_bit:
    case BlockScales::six_bit_signed:
      return 16;
    case BlockScales::four_bit:
    case BlockScales::int8:
      return 20;
  }
  return 0;
}

// Sixteen numbers of 6 bits: nibbles in two words, the upper bits in a third.
void put_six_bits(const std::array<uint8_t, 16>& n, std::byte* to) {
  std::array<uint32_t, 3> w{};
  for (size_t i = 0; i < 16; ++i) {
    w[i / 8] |= static_cast<uint32_t>(n[i] & 15) << (4 * (i % 8));
    w[2] |= static_cast<uint32_t>(n[i] >> 4) << (2 * i);
  }
  std::memcpy(to, w.data(), 12);
}
std::array<uint8_t, 16> take_six_bits(const std::byte* from) {
  std::array<uint32_t, 3> w;
  std::memcpy(w.data(), from, 12);
  std::array<uint8_t, 16> n;
  for (size_t i = 0; i < 16; ++i)
    n[i] = static_cast<uint8_t>((w[i / 8] >> (4 * (i % 8)) & 15) | (w[2] >> (2 * i) & 3) << 4);
  return n;
}

void put_scales(BlockScales s, const QuantBlock& b, std::byte* to) {
  std::memcpy(to, &b.d, 2);
  if (s == BlockScales::d) return;
  std::memcpy(to + 2, &b.dmin, 2);
  std::array<uint8_t, 16> n;
  switch (s) {
    case BlockScales::six_bit:
      for (size_t i = 0; i < 8; ++i) n[2 * i] = b.scale[i], n[2 * i + 1] = b.min[i];
      return put_six_bits(n, to + 4);
    case BlockScales::six_bit_signed:
      return put_six_bits(b.scale, to + 4);
    case BlockScales::four_bit:
      for (size_t i = 0; i < 16; ++i) n[i] = static_cast<uint8_t>(b.scale[i] | b.min[i] << 4);
      std::memcpy(to + 4, n.data(), 16);
      return;
    case BlockScales::int8:
      std::memcpy(to + 4, b.scale.data(), 16);
      return;
    default:
      return;
  }
}
void take_scales(BlockScales s, const std::byte* from, QuantBlock& b) {
  std::memcpy(&b.d, from, 2);
  if (s == BlockScales::d) return;
  std::memcpy(&b.dmin, from + 2, 2);
  switch (s) {
    case BlockScales::six_bit: {
      const std::array<uint8_t, 16> n = take_six_bits(from + 4);
      for (size_t i = 0; i < 8; ++i) b.scale[i] = n[2 * i], b.min[i] = n[2 * i + 1];
      return;
    }
    case BlockScales::six_bit_signed:
      b.scale = take_six_bits(from + 4);
      return;
    case BlockScales::four_bit:
      for (size_t i = 0; i < 16; ++i) {
        const auto both = std::to_integer<uint8_t>(from[4 + i]);
        b.scale[i] = both & 15, b.min[i] = both >> 4;
      }
      return;
    case BlockScales::int8:
      std::memcpy(b.scale.data(), from + 4, 16);
      return;
    default:
      return;
  }
}

// Where block `i` of a row has its numbers and scales.
struct Places {
  size_t low, high, scales;
};
Places places(const BlockType& t, int64_t columns, int64_t i) {
  const auto k = static_cast<size_t>(columns), before = static_cast<size_t>(i * t.values);
  const auto low = static_cast<size_t>(t.low_bits), high = static_cast<size_t>(t.high_bits);
  return {before * low / 8, k * low / 8 + before * high / 8,
          k * (low + high) / 8 + static_cast<size_t>(i) * static_cast<size_t>(scale_bytes(t.scales))};
}

void put_block(const BlockType& t, const QuantBlock& b, int64_t columns, int64_t i, std::byte* row) {
  const Places p = places(t, columns, i);
  put_plane(b.q.data(), t.values, t.low_bits, 0, row + p.low);
  if (t.high_bits) put_plane(b.q.data(), t.values, t.high_bits, t.low_bits, row + p.high);
  put_scales(t.scales, b, row + p.scales);
}
void take_block(const BlockType& t, const std::byte* row, int64_t columns, int64_t i, QuantBlock& b) {
  const Places p = places(t, columns, i);
  b.q.fill(0);
  take_plane(row + p.low, t.values, t.low_bits, 0, b.q.data());
  if (t.high_bits) take_plane(row + p.high, t.values, t.high_bits, t.low_bits, b.q.data());
  take_scales(t.scales, row + p.scales, b);
}

size_t f8_scale_at(int64_t columns) {
  return static_cast<size_t>((columns + 3) / 4 * 4);
}

}  // namespace

bool is_packed(DType t) {
  return t >= DType::f8_e4m3;
}

int64_t block_values(DType t) {
  return is_packed(t) && !is_f8(t) ? block_type(t).values : 1;
}

uint64_t row_bytes(DType t, int64_t columns) {
  if (!is_packed(t)) return static_cast<uint64_t>(columns) * size_of(t);
  if (columns == 0) return 0;
  uint64_t bytes = f8_scale_at(columns) + 4;
  if (!is_f8(t)) {
    const BlockType& type = block_type(t);
    bytes = places(type, columns, columns / type.values).scales;
  }
  return (bytes + 15) / 16 * 16;
}

void check_packed(DType t, const Shape& shape) {
  if (shape.rank() == 2 && shape[1] % block_values(t) == 0) return;
  throw Error(ErrorCode::invalid_argument,
              shape.rank() != 2
                  ? fmt::format("{} holds matrices only, not {}", name(t), shape.str())
                  : fmt::format("{} needs rows of a multiple of {} values, {} has {}; keep this one in {}f16",
                                name(t), block_values(t), shape.str(), shape[1],
                                block_values(t) == 256 && shape[1] % 32 == 0 ? "q8_0 or " : ""));
}

void pack_rows(DType t, std::span<const std::byte> file_blocks, const Shape& shape, std::span<std::byte> out,
               float scale) {
  check_packed(t, shape);
  const auto rows = static_cast<size_t>(shape[0]);
  const size_t from = file_bytes(t, shape[1]), to = row_bytes(t, shape[1]);
  expect_bytes(t, shape, file_blocks.size(), rows * from);
  expect_bytes(t, shape, out.size(), rows * to);
  if (shape.numel() == 0) return;
  QuantBlock block;
  for (size_t r = 0; r < rows; ++r) {
    const std::byte* file = file_blocks.data() + r * from;
    std::byte* row = out.data() + r * to;
    std::fill(row + to - std::min<size_t>(to, 32), row + to, std::byte{0});
    if (is_f8(t)) {
      std::copy_n(file, from, row);
      std::memcpy(row + f8_scale_at(shape[1]), &scale, 4);
      continue;
    }
    const BlockType& type = block_type(t);
    for (int64_t i = 0; i < shape[1] / type.values; ++i) {
      type.split(file + static_cast<size_t>(i) * static_cast<size_t>(type.bytes), block);
      put_block(type, block, shape[1], i, row);
    }
  }
}

std::vector<std::byte> pack_rows(DType t, std::span<const std::byte> file_blocks, const Shape& shape,
                                 float scale) {
  check_packed(t, shape);
  std::vector<std::byte> out(static_cast<size_t>(shape[0]) * row_bytes(t, shape[1]));
  pack_rows(t, file_blocks, shape, out, scale);
  return out;
}

std::vector<std::byte> unpack_rows(DType t, std::span<const std::byte> device_rows, const Shape& shape) {
  check_packed(t, shape);
  const auto rows = static_cast<size_t>(shape[0]);
  const size_t to = file_bytes(t, shape[1]), from = row_bytes(t, shape[1]);
  expect_bytes(t, shape, device_rows.size(), rows * from);
  std::vector<std::byte> out(rows * to);
  QuantBlock block;
  for (size_t r = 0; r < rows; ++r) {
    const std::byte* row = device_rows.data() + r * from;
    std::byte* file = out.data() + r * to;
    if (is_f8(t)) {
      std::copy_n(row, to, file);
      continue;
    }
    const BlockType& type = block_type(t);
    for (int64_t i = 0; i < shape[1] / type.values; ++i) {
      take_block(type, row, shape[1], i, block);
      type.join(block, file + static_cast<size_t>(i) * static_cast<size_t>(type.bytes));
    }
  }
  return out;
}

std::vector<float> decode_rows(DType t, std::span<const std::byte> device_rows, const Shape& shape) {
  const std::vector<std::byte> blocks = unpack_rows(t, device_rows, shape);
  std::vector<float> out(static_cast<size_t>(shape.numel()));
  decode_blocks(t, blocks, out);
  for (int64_t r = 0; is_f8(t) && r < shape[0]; ++r) {
    float scale;
    std::memcpy(&scale,
                device_rows.data() + static_cast<size_t>(r) * row_bytes(t, shape[1]) + f8_scale_at(shape[1]),
                4);
    for (int64_t i = 0; i < shape[1]; ++i) out[static_cast<size_t>(r * shape[1] + i)] *= scale;
  }
  return out;
}

float from_f8(DType t, uint8_t code) {
  if (t == DType::f8_e5m2) return from_f16(static_cast<uint16_t>(code << 8));
  const int e = code >> 3 & 15, m = code & 7;
  if ((code & 0x7f) == 0x7f) return std::numeric_limits<float>::quiet_NaN();
  const float x = e == 0 ? static_cast<float>(m) * 0x1p-9f : std::ldexp(static_cast<float>(8 + m), e - 10);
  return code & 0x80 ? -x : x;
}

uint8_t to_f8(DType t, float x) {
  const bool e4m3 = t == DType::f8_e4m3;
  const uint32_t bits = e4m3 ? 20 : 21;      // of an f32's mantissa that are dropped
  const uint32_t normal = e4m3 ? 121 : 113;  // exponent of the least normal number
  const uint32_t largest = e4m3 ? 0x7e : 0x7b;
  const uint32_t u = std::bit_cast<uint32_t>(x), sign = u >> 24 & 0x80u, v = u & 0x7fffffffu;
  uint32_t code;
  if (v >= 0x7f800000u) {
    code = v > 0x7f800000u || e4m3 ? 0x7f : 0x7c;  // e4m3 has no infinity
  } else if (v >= normal << 23) {
    code = std::min(
        largest, ((v + (1u << (bits - 1)) - 1 + (v >> bits & 1u)) >> bits) - ((normal - 1) << (23 - bits)));
  } else {
    // Units of the least subnormal number; the default rounding is to nearest even.
    code = static_cast<uint32_t>(std::nearbyint(std::ldexp(std::bit_cast<float>(v), e4m3 ? 9 : 16)));
  }
  return static_cast<uint8_t>(sign | code);
}

}  // namespace vkflux
