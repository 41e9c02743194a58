#include "autograd/packed.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "vk/error.h"

namespace vkflux {
namespace {

constexpr int64_t kGroup = 256;  // values
constexpr uint64_t kQ4Bytes = 144, kQ8FileBytes = 34;

// The blocks of group `g` of a q8_0 row; every group but the last has eight.
int64_t group_blocks(int64_t columns, int64_t g) {
  return std::min<int64_t>(8, (columns - g * kGroup) / 32);
}

uint64_t file_row_bytes(DType t, int64_t columns) {
  const auto k = static_cast<uint64_t>(columns);
  return t == DType::q8_0 ? k / 32 * kQ8FileBytes : t == DType::q4_k ? k / 256 * kQ4Bytes : k;
}

void expect_bytes(DType t, const Shape& shape, size_t given, uint64_t wanted) {
  if (given == wanted) return;
  throw Error(ErrorCode::invalid_argument,
              fmt::format("{} bytes given for {} {}, {} are needed", given, name(t), shape.str(), wanted));
}

// Calls f(block in the file's row, quants in the device row, scale in the device row).
template <class F>
void for_q8_blocks(int64_t columns, F f) {
  for (int64_t b = 0; b < columns / 32; ++b) {
    const int64_t g = b / 8, blocks = group_blocks(columns, g);
    const int64_t base = g * (kGroup + 16);
    f(static_cast<uint64_t>(b) * kQ8FileBytes, static_cast<size_t>(base + b % 8 * 32),
      static_cast<size_t>(base + 32 * blocks + b % 8 * 2));
  }
}

float f16_at(const std::byte* p) {
  uint16_t h;
  std::memcpy(&h, p, 2);
  return from_f16(h);
}

void decode_q4(const std::byte* block, float* out) {
  const float d = f16_at(block), dmin = f16_at(block + 2);
  const auto byte = [&](int64_t i) { return std::to_integer<uint32_t>(block[i]); };
  for (int64_t b = 0; b < 8; ++b) {
    const int64_t low = 4 + b % 4;  // bytes of sub-blocks b and b + 4
    const uint32_t x = byte(low), y = byte(low + 4), z = byte(low + 8);
    const uint32_t scale = b < 4 ? x & 63 : (z & 15) | (x >> 6) << 4;
    const uint32_t least = b < 4 ? y & 63 : z >> 4 | (y >> 6) << 4;
    for (int64_t i = 0; i < 32; ++i) {
      const uint32_t q = byte(16 + b / 2 * 32 + i) >> (b % 2 * 4) & 15;
      out[b * 32 + i] =
          d * static_cast<float>(scale) * static_cast<float>(q) - dmin * static_cast<float>(least);
    }
  }
}

void decode_row(DType t, const std::byte* row, int64_t columns, float* out) {
  if (t == DType::q8_0) {
    for_q8_blocks(columns, [&](uint64_t, size_t quants, size_t scale) {
      const float d = f16_at(row + scale);
      for (size_t i = 0; i < 32; ++i)
        *out++ = d * static_cast<float>(static_cast<int8_t>(std::to_integer<uint8_t>(row[quants + i])));
    });
  } else if (t == DType::q4_k) {
    for (int64_t b = 0; b < columns / kGroup; ++b)
      decode_q4(row + static_cast<uint64_t>(b) * kQ4Bytes, out + b * kGroup);
  } else {
    for (int64_t i = 0; i < columns; ++i) out[i] = from_f8(t, std::to_integer<uint8_t>(row[i]));
  }
}

}  // namespace

bool is_packed(DType t) {
  return t >= DType::f8_e4m3;
}

int64_t block_values(DType t) {
  return t == DType::q8_0 ? 32 : t == DType::q4_k ? 256 : 1;
}

uint64_t row_bytes(DType t, int64_t columns) {
  if (!is_packed(t)) return static_cast<uint64_t>(columns) * size_of(t);
  const auto k = static_cast<uint64_t>(columns);
  if (t == DType::q4_k) return k / 256 * kQ4Bytes;
  if (t == DType::q8_0) return k + (k + 255) / 256 * 16;
  return (k + 15) / 16 * 16;
}

void check_packed(DType t, const Shape& shape) {
  if (shape.rank() == 2 && shape[1] % block_values(t) == 0) return;
  throw Error(ErrorCode::invalid_argument,
              shape.rank() != 2
                  ? fmt::format("{} holds matrices only, not {}", name(t), shape.str())
                  : fmt::format("{} needs rows of a multiple of {} values, {} has {}; keep this one in {}f16",
                                name(t), block_values(t), shape.str(), shape[1],
                                t == DType::q4_k && shape[1] % 32 == 0 ? "q8_0 or " : ""));
}

std::vector<std::byte> pack_rows(DType t, std::span<const std::byte> file_blocks, const Shape& shape) {
  check_packed(t, shape);
  const auto rows = static_cast<uint64_t>(shape[0]);
  const uint64_t from = file_row_bytes(t, shape[1]), to = row_bytes(t, shape[1]);
  expect_bytes(t, shape, file_blocks.size(), rows * from);
  std::vector<std::byte> out(rows * to);
  for (uint64_t r = 0; r < rows; ++r) {
    const std::byte* file = file_blocks.data() + r * from;
    std::byte* row = out.data() + r * to;
    if (t != DType::q8_0) {
      std::copy_n(file, from, row);
      continue;
    }
    for_q8_blocks(shape[1], [&](uint64_t block, size_t quants, size_t scale) {
      std::memcpy(row + scale, file + block, 2);
      std::memcpy(row + quants, file + block + 2, 32);
    });
  }
  return out;
}

std::vector<std::byte> unpack_rows(DType t, std::span<const std::byte> device_rows, const Shape& shape) {
  check_packed(t, shape);
  const auto rows = static_cast<uint64_t>(shape[0]);
  const uint64_t to = file_row_bytes(t, shape[1]), from = row_bytes(t, shape[1]);
  expect_bytes(t, shape, device_rows.size(), rows * from);
  std::vector<std::byte> out(rows * to);
  for (uint64_t r = 0; r < rows; ++r) {
    const std::byte* row = device_rows.data() + r * from;
    std::byte* file = out.data() + r * to;
    if (t != DType::q8_0) {
      std::copy_n(row, to, file);
      continue;
    }
    for_q8_blocks(shape[1], [&](uint64_t block, size_t quants, size_t scale) {
      std::memcpy(file + block, row + scale, 2);
      std::memcpy(file + block + 2, row + quants, 32);
    });
  }
  return out;
}

std::vector<float> decode_rows(DType t, std::span<const std::byte> device_rows, const Shape& shape) {
  check_packed(t, shape);
  const uint64_t bytes = row_bytes(t, shape[1]);
  expect_bytes(t, shape, device_rows.size(), static_cast<uint64_t>(shape[0]) * bytes);
  std::vector<float> out(static_cast<size_t>(shape.numel()));
  for (int64_t r = 0; r < shape[0]; ++r) {
    decode_row(t, device_rows.data() + static_cast<uint64_t>(r) * bytes, shape[1], out.data() + r * shape[1]);
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
