#include "autograd/blocks.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "autograd/half.h"
#include "autograd/packed.h"
#include "vk/error.h"

namespace vkflux {
namespace {

constexpr uint16_t kF16Nan = 0x7e00;

uint8_t byte(const std::byte* p) {
  return std::to_integer<uint8_t>(*p);
}
uint16_t half(const std::byte* p) {
  uint16_t h;
  std::memcpy(&h, p, 2);
  return h;
}
void put(std::byte* p, int v) {
  *p = static_cast<std::byte>(v);
}
void put_half(std::byte* p, uint16_t h) {
  std::memcpy(p, &h, 2);
}
uint8_t u8(int v) {
  return static_cast<uint8_t>(v);
}

// 32 numbers in 16 bytes, the low nibbles first, with a fifth bit from `qh` where there is one.
void split_nibbles(const std::byte* qs, const std::byte* qh, uint8_t* q) {
  for (int j = 0; j < 16; ++j) {
    q[j] = byte(qs + j) & 15;
    q[j + 16] = byte(qs + j) >> 4;
  }
  if (!qh) return;
  uint32_t bits;
  std::memcpy(&bits, qh, 4);
  for (int j = 0; j < 32; ++j) q[j] = u8(q[j] | (bits >> j & 1) << 4);
}
void join_nibbles(const uint8_t* q, std::byte* qs, std::byte* qh) {
  uint32_t bits = 0;
  for (int j = 0; j < 16; ++j) put(qs + j, (q[j] & 15) | (q[j + 16] & 15) << 4);
  for (int j = 0; j < 32; ++j) bits |= static_cast<uint32_t>(q[j] >> 4) << j;
  if (qh) std::memcpy(qh, &bits, 4);
}

// The 32-value types: d, the minimum where there is one, the fifth bits where there are, nibbles.
template <bool kMin, bool kFifth>
void split_small(const std::byte* f, QuantBlock& b) {
  b.d = half(f);
  if (kMin) b.dmin = half(f + 2);
  const std::byte* rest = f + (kMin ? 4 : 2);
  split_nibbles(rest + (kFifth ? 4 : 0), kFifth ? rest : nullptr, b.q.data());
}
template <bool kMin, bool kFifth>
void join_small(const QuantBlock& b, std::byte* f) {
  put_half(f, b.d);
  if (kMin) put_half(f + 2, b.dmin);
  std::byte* rest = f + (kMin ? 4 : 2);
  join_nibbles(b.q.data(), rest + (kFifth ? 4 : 0), kFifth ? rest : nullptr);
}

// int8 as numbers from 0 on.
void split_q8_0(const std::byte* f, QuantBlock& b) {
  b.d = half(f);
  for (size_t j = 0; j < 32; ++j) b.q[j] = byte(f + 2 + j) ^ 0x80;
}
void join_q8_0(const QuantBlock& b, std::byte* f) {
  put_half(f, b.d);
  for (size_t j = 0; j < 32; ++j) put(f + 2 + j, b.q[j] ^ 0x80);
}

// Two bits of each of 256 numbers, four to a byte: those of a byte are 32 apart.
void split_crumbs(const std::byte* qs, uint8_t* q, int shift) {
  for (int n = 0; n < 2; ++n) {
    for (int k = 0; k < 4; ++k) {
      for (int l = 0; l < 32; ++l) {
        uint8_t& to = q[128 * n + 32 * k + l];
        to = u8(to | (byte(qs + 32 * n + l) >> 2 * k & 3) << shift);
      }
    }
  }
}
void join_crumbs(const uint8_t* q, std::byte* qs, int shift) {
  for (int n = 0; n < 2; ++n) {
    for (int l = 0; l < 32; ++l) {
      int v = 0;
      for (int k = 0; k < 4; ++k) v |= (q[128 * n + 32 * k + l] >> shift & 3) << 2 * k;
      put(qs + 32 * n + l, v);
    }
  }
}

void split_q2_k(const std::byte* f, QuantBlock& b) {
  for (size_t k = 0; k < 16; ++k) {
    b.scale[k] = byte(f + k) & 15;
    b.min[k] = byte(f + k) >> 4;
  }
  b.q.fill(0);
  split_crumbs(f + 16, b.q.data(), 0);
  b.d = half(f + 80), b.dmin = half(f + 82);
}
void join_q2_k(const QuantBlock& b, std::byte* f) {
  for (size_t k = 0; k < 16; ++k) put(f + k, b.scale[k] | b.min[k] << 4);
  join_crumbs(b.q.data(), f + 16, 0);
  put_half(f + 80, b.d), put_half(f + 82, b.dmin);
}

void split_q3_k(const std::byte* f, QuantBlock& b) {
  for (size_t i = 0; i < 256; ++i) b.q[i] = u8((byte(f + i % 32) >> (i / 32) & 1) << 2);
  split_crumbs(f + 32, b.q.data(), 0);
  const std::byte* s = f + 96;
  for (size_t k = 0; k < 16; ++k) {
    const int low = k < 8 ? byte(s + k) & 15 : byte(s + k - 8) >> 4;
    b.scale[k] = u8(low | (byte(s + 8 + k % 4) >> 2 * (k / 4) & 3) << 4);
  }
  b.d = half(f + 108);
}
void join_q3_k(const QuantBlock& b, std::byte* f) {
  std::memset(f, 0, 110);
  for (size_t i = 0; i < 256; ++i) f[i % 32] |= static_cast<std::byte>((b.q[i] >> 2) << (i / 32));
  join_crumbs(b.q.data(), f + 32, 0);
  std::byte* s = f + 96;
  for (size_t k = 0; k < 16; ++k) {
    s[k % 8] |= static_cast<std::byte>((b.scale[k] & 15) << (k < 8 ? 0 : 4));
    s[8 + k % 4] |= static_cast<std::byte>((b.scale[k] >> 4) << 2 * (k / 4));
  }
  put_half(f + 108, b.d);
}

// The header of Q4_K and Q5_K: d, dmin, and eight pairs of 6-bit numbers in twelve bytes.
void split_header(const std::byte* f, QuantBlock& b) {
  b.d = half(f), b.dmin = half(f + 2);
  const std::byte* s = f + 4;
  for (size_t k = 0; k < 4; ++k) {
    const int x = byte(s + k), y = byte(s + k + 4), z = byte(s + k + 8);
    b.scale[k] = u8(x & 63), b.min[k] = u8(y & 63);
    b.scale[k + 4] = u8((z & 15) | x >> 6 << 4), b.min[k + 4] = u8(z >> 4 | y >> 6 << 4);
  }
}
void join_header(const QuantBlock& b, std::byte* f) {
  put_half(f, b.d), put_half(f + 2, b.dmin);
  std::byte* s = f + 4;
  for (size_t k = 0; k < 4; ++k) {
    put(s + k, b.scale[k] | (b.scale[k + 4] >> 4) << 6);
    put(s + k + 4, b.min[k] | (b.min[k + 4] >> 4) << 6);
    put(s + k + 8, (b.scale[k + 4] & 15) | (b.min[k + 4] & 15) << 4);
  }
}
// Nibbles in groups of 64: the low ones are the first 32.
void split_k_nibbles(const std::byte* qs, uint8_t* q) {
  for (int g = 0; g < 4; ++g) {
    for (int l = 0; l < 32; ++l) {
      q[64 * g + l] = byte(qs + 32 * g + l) & 15;
      q[64 * g + 32 + l] = byte(qs + 32 * g + l) >> 4;
    }
  }
}
void join_k_nibbles(const uint8_t* q, std::byte* qs) {
  for (int g = 0; g < 4; ++g) {
    for (int l = 0; l < 32; ++l) put(qs + 32 * g + l, (q[64 * g + l] & 15) | (q[64 * g + 32 + l] & 15) << 4);
  }
}

void split_q4_k(const std::byte* f, QuantBlock& b) {
  split_header(f, b);
  split_k_nibbles(f + 16, b.q.data());
}
void join_q4_k(const QuantBlock& b, std::byte* f) {
  join_header(b, f);
  join_k_nibbles(b.q.data(), f + 16);
}
void split_q5_k(const std::byte* f, QuantBlock& b) {
  split_header(f, b);
  split_k_nibbles(f + 48, b.q.data());
  for (size_t i = 0; i < 256; ++i) b.q[i] = u8(b.q[i] | (byte(f + 16 + i % 32) >> (i / 32) & 1) << 4);
}
void join_q5_k(const QuantBlock& b, std::byte* f) {
  join_header(b, f);
  join_k_nibbles(b.q.data(), f + 48);
  std::memset(f + 16, 0, 32);
  for (size_t i = 0; i < 256; ++i) f[16 + i % 32] |= static_cast<std::byte>((b.q[i] >> 4) << (i / 32));
}

void split_q6_k(const std::byte* f, QuantBlock& b) {
  for (int n = 0; n < 2; ++n) {
    for (int l = 0; l < 64; ++l) {
      b.q[static_cast<size_t>(128 * n + l)] = byte(f + 64 * n + l) & 15;
      b.q[static_cast<size_t>(128 * n + 64 + l)] = byte(f + 64 * n + l) >> 4;
    }
  }
  split_crumbs(f + 128, b.q.data(), 4);
  for (size_t k = 0; k < 16; ++k) b.scale[k] = byte(f + 192 + k);
  b.d = half(f + 208);
}
void join_q6_k(const QuantBlock& b, std::byte* f) {
  for (int n = 0; n < 2; ++n) {
    for (int l = 0; l < 64; ++l) {
      const uint8_t* q = b.q.data() + 128 * n + l;
      put(f + 64 * n + l, (q[0] & 15) | (q[64] & 15) << 4);
    }
  }
  join_crumbs(b.q.data(), f + 128, 4);
  for (size_t k = 0; k < 16; ++k) put(f + 192 + k, b.scale[k]);
  put_half(f + 208, b.d);
}

constexpr std::array kTypes{
    BlockType{DType::q4_0, 32, 18, 4, 0, 8, BlockScales::d, split_small<false, false>,
              join_small<false, false>, encode_q4_0},
    BlockType{DType::q4_1, 32, 20, 4, 0, 0, BlockScales::d_and_min, split_small<true, false>,
              join_small<true, false>, encode_q4_1},
    BlockType{DType::q5_0, 32, 22, 4, 1, 16, BlockScales::d, split_small<false, true>,
              join_small<false, true>, encode_q5_0},
    BlockType{DType::q5_1, 32, 24, 4, 1, 0, BlockScales::d_and_min, split_small<true, true>,
              join_small<true, true>, encode_q5_1},
    BlockType{DType::q8_0, 32, 34, 8, 0, 128, BlockScales::d, split_q8_0, join_q8_0, encode_q8_0},
    BlockType{DType::q2_k, 256, 84, 2, 0, 0, BlockScales::four_bit, split_q2_k, join_q2_k, encode_q2_k},
    BlockType{DType::q3_k, 256, 110, 2, 1, 4, BlockScales::six_bit_signed, split_q3_k, join_q3_k,
              encode_q3_k},
    BlockType{DType::q4_k, 256, 144, 4, 0, 0, BlockScales::six_bit, split_q4_k, join_q4_k, encode_q4_k},
    BlockType{DType::q5_k, 256, 176, 4, 1, 0, BlockScales::six_bit, split_q5_k, join_q5_k, encode_q5_k},
    BlockType{DType::q6_k, 256, 210, 4, 2, 32, BlockScales::int8, split_q6_k, join_q6_k, encode_q6_k}};

bool special_half(uint16_t h) {
  return (h & 0x7c00) == 0x7c00;
}

bool has_min(BlockScales s) {
  return s == BlockScales::d_and_min || s == BlockScales::six_bit || s == BlockScales::four_bit;
}

}  // namespace

const BlockType& block_type(DType t) {
  const auto* row =
      std::find_if(kTypes.begin(), kTypes.end(), [&](const BlockType& b) { return b.type == t; });
  if (row == kTypes.end()) throw Error(ErrorCode::internal, fmt::format("{} has no blocks", name(t)));
  return *row;
}

void values_of(const BlockType& t, const QuantBlock& b, float* out) {
  const float d = from_f16(b.d), dmin = from_f16(b.dmin);
  for (size_t first = 0; first < static_cast<size_t>(t.values); first += 16) {
    const size_t k = t.scales == BlockScales::six_bit ? first / 32 : first / 16;
    float x = d, y = 0;
    switch (t.scales) {
      case BlockScales::d:
        break;
      case BlockScales::d_and_min:
        y = -dmin;
        break;
      case BlockScales::six_bit:
      case BlockScales::four_bit:
        x = d * static_cast<float>(b.scale[k]);
        y = dmin * static_cast<float>(b.min[k]);
        break;
      case BlockScales::six_bit_signed:
        x = d * static_cast<float>(b.scale[k] - 32);
        break;
      case BlockScales::int8:
        x = d * static_cast<float>(static_cast<int8_t>(b.scale[k]));
        break;
    }
    for (size_t i = first; i < first + 16; ++i) out[i] = x * static_cast<float>(b.q[i] - t.zero) - y;
  }
}

void decode_blocks(DType t, std::span<const std::byte> bytes, std::span<float> out) {
  if (block_values(t) == 1) {
    for (size_t i = 0; i < out.size(); ++i) out[i] = from_f8(t, std::to_integer<uint8_t>(bytes[i]));
    return;
  }
  const BlockType& type = block_type(t);
  const auto values = static_cast<size_t>(type.values), size = static_cast<size_t>(type.bytes);
  QuantBlock block;
  for (size_t i = 0; i < out.size() / values; ++i) {
    type.split(bytes.data() + i * size, block);
    values_of(type, block, out.data() + i * values);
  }
}

void encode_blocks(DType t, std::span<const float> values, std::span<std::byte> bytes) {
  if (block_values(t) == 1) {
    for (size_t i = 0; i < values.size(); ++i) bytes[i] = static_cast<std::byte>(to_f8(t, values[i]));
    return;
  }
  const BlockType& type = block_type(t);
  const auto count = static_cast<size_t>(type.values), size = static_cast<size_t>(type.bytes);
  QuantBlock block;
  for (size_t i = 0; i < values.size() / count; ++i) {
    const auto some = values.subspan(i * count, count);
    if (std::all_of(some.begin(), some.end(), [](float v) { return std::isfinite(v); })) {
      type.encode(some.data(), block);
    } else {
      block = QuantBlock{.d = kF16Nan};
    }
    type.join(block, bytes.data() + i * size);
  }
}

std::optional<int64_t> first_not_finite(DType t, std::span<const std::byte> bytes) {
  if (block_values(t) == 1) {
    const bool e4m3 = t == DType::f8_e4m3;
    const auto odd = [e4m3](std::byte b) {
      return e4m3 ? (b & std::byte{0x7f}) == std::byte{0x7f} : (b & std::byte{0x7c}) == std::byte{0x7c};
    };
    // Without branches first, so that compilers make vector code of it.
    constexpr size_t kPiece = 4096;
    for (size_t at = 0; at < bytes.size(); at += kPiece) {
      const auto piece = bytes.subspan(at, std::min(kPiece, bytes.size() - at));
      uint8_t found = 0;
      for (const std::byte b : piece) found |= static_cast<uint8_t>(odd(b));
      if (found)
        return static_cast<int64_t>(at) + (std::find_if(piece.begin(), piece.end(), odd) - piece.begin());
    }
    return std::nullopt;
  }
  const BlockType& type = block_type(t);
  // Of the K types but Q4_K and Q5_K the scales come last.
  const bool last = t == DType::q2_k || t == DType::q3_k || t == DType::q6_k;
  const bool both = has_min(type.scales);
  const auto size = static_cast<size_t>(type.bytes), at = last ? size - (both ? 4 : 2) : 0;
  for (size_t i = 0; i < bytes.size() / size; ++i) {
    const std::byte* p = bytes.data() + i * size + at;
    if (special_half(half(p)) || (both && special_half(half(p + 2)))) return static_cast<int64_t>(i);
  }
  return std::nullopt;
}

uint64_t file_bytes(DType t, int64_t values) {
  const auto n = static_cast<uint64_t>(values);
  if (!is_packed(t)) return n * size_of(t);
  if (block_values(t) == 1) return n;
  const BlockType& type = block_type(t);
  return n / static_cast<uint64_t>(type.values) * static_cast<uint64_t>(type.bytes);
}

}  // namespace vkflux
