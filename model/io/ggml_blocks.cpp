#include "model/io/ggml_blocks.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>

#include "autograd/half.h"
#include "vk/error.h"

namespace vkflux::io {
namespace {

uint32_t byte(const std::byte* p) {
  return std::to_integer<uint32_t>(*p);
}
float half(const std::byte* p) {
  uint16_t h;
  std::memcpy(&h, p, 2);
  return from_f16(h);
}
float number(int32_t n) {
  return static_cast<float>(n);
}

// 32 values: nibbles of `qs`, the low ones first, with a fifth bit from `qh` where there is one.
template <class F>
void nibbles(const std::byte* qs, const std::byte* qh, float* out, F value) {
  uint32_t bits = 0;
  if (qh) std::memcpy(&bits, qh, 4);
  for (uint32_t j = 0; j < 16; ++j) {
    const uint32_t q = byte(qs + j);
    out[j] = value(static_cast<int32_t>((q & 15) | (bits >> j & 1) << 4));
    out[j + 16] = value(static_cast<int32_t>(q >> 4 | (bits >> (j + 16) & 1) << 4));
  }
}

void q4_0(const std::byte* b, float* out) {
  const float d = half(b);
  nibbles(b + 2, nullptr, out, [=](int32_t q) { return d * number(q - 8); });
}
void q4_1(const std::byte* b, float* out) {
  const float d = half(b), m = half(b + 2);
  nibbles(b + 4, nullptr, out, [=](int32_t q) { return d * number(q) + m; });
}
void q5_0(const std::byte* b, float* out) {
  const float d = half(b);
  nibbles(b + 6, b + 2, out, [=](int32_t q) { return d * number(q - 16); });
}
void q5_1(const std::byte* b, float* out) {
  const float d = half(b), m = half(b + 2);
  nibbles(b + 8, b + 4, out, [=](int32_t q) { return d * number(q) + m; });
}
void q8_0(const std::byte* b, float* out) {
  const float d = half(b);
  for (uint32_t j = 0; j < 32; ++j) out[j] = d * number(static_cast<int8_t>(byte(b + 2 + j)));
}

void q2_k(const std::byte* b, float* out) {
  const float d = half(b + 80), dmin = half(b + 82);
  for (uint32_t i = 0; i < 256; ++i) {
    const uint32_t r = i % 128, scales = byte(b + i / 16);
    const uint32_t q = byte(b + 16 + 32 * (i / 128) + r % 32) >> 2 * (r / 32) & 3;
    out[i] = d * number(scales & 15) * number(static_cast<int32_t>(q)) - dmin * number(scales >> 4);
  }
}

void q3_k(const std::byte* b, float* out) {
  const std::byte* scales = b + 96;
  const float d = half(b + 108);
  std::array<float, 16> s;
  for (uint32_t k = 0; k < 16; ++k) {
    const uint32_t low = k < 8 ? byte(scales + k) & 15 : byte(scales + k - 8) >> 4;
    const uint32_t high = byte(scales + 8 + k % 4) >> 2 * (k / 4) & 3;
    s[k] = d * number(static_cast<int32_t>(low | high << 4) - 32);
  }
  for (uint32_t i = 0; i < 256; ++i) {
    const uint32_t r = i % 128;
    const uint32_t low = byte(b + 32 + 32 * (i / 128) + r % 32) >> 2 * (r / 32) & 3;
    const bool high = byte(b + i % 32) >> (i / 32) & 1;
    out[i] = s[i / 16] * number(static_cast<int32_t>(low) - (high ? 0 : 4));
  }
}

// The 6-bit scale and minimum of sub-block k of Q4_K and Q5_K.
struct ScaleMin {
  uint32_t scale, min;
};
ScaleMin scale_min(const std::byte* sc, uint32_t k) {
  if (k < 4) return {byte(sc + k) & 63, byte(sc + k + 4) & 63};
  return {(byte(sc + k + 4) & 15) | byte(sc + k - 4) >> 6 << 4,
          byte(sc + k + 4) >> 4 | byte(sc + k) >> 6 << 4};
}

// Q4_K, and Q5_K with a fifth bit from `qh`.
void k_nibbles(const std::byte* b, const std::byte* qh, const std::byte* qs, float* out) {
  const float d = half(b), dmin = half(b + 2);
  for (uint32_t k = 0; k < 8; ++k) {
    const ScaleMin s = scale_min(b + 4, k);
    const float scale = d * number(static_cast<int32_t>(s.scale)),
                min = dmin * number(static_cast<int32_t>(s.min));
    for (uint32_t l = 0; l < 32; ++l) {
      uint32_t q = byte(qs + 32 * (k / 2) + l) >> 4 * (k % 2) & 15;
      if (qh) q |= (byte(qh + l) >> k & 1) << 4;
      out[32 * k + l] = scale * number(static_cast<int32_t>(q)) - min;
    }
  }
}
void q4_k(const std::byte* b, float* out) {
  k_nibbles(b, nullptr, b + 16, out);
}
void q5_k(const std::byte* b, float* out) {
  k_nibbles(b, b + 16, b + 48, out);
}

void q6_k(const std::byte* b, float* out) {
  const float d = half(b + 208);
  for (uint32_t i = 0; i < 256; ++i) {
    const uint32_t n = i / 128, k = i % 128 / 32, l = i % 32;
    const uint32_t low = byte(b + 64 * n + 32 * (k & 1) + l) >> (k < 2 ? 0 : 4) & 15;
    const uint32_t high = byte(b + 128 + 32 * n + l) >> 2 * k & 3;
    const float scale = d * number(static_cast<int8_t>(byte(b + 192 + i / 16)));
    out[i] = scale * number(static_cast<int32_t>(low | high << 4) - 32);
  }
}

struct Decoder {
  FileDType type;
  void (*block)(const std::byte*, float*);
};
constexpr std::array kDecoders{Decoder{FileDType::q4_0, q4_0}, Decoder{FileDType::q4_1, q4_1},
                               Decoder{FileDType::q5_0, q5_0}, Decoder{FileDType::q5_1, q5_1},
                               Decoder{FileDType::q8_0, q8_0}, Decoder{FileDType::q2_k, q2_k},
                               Decoder{FileDType::q3_k, q3_k}, Decoder{FileDType::q4_k, q4_k},
                               Decoder{FileDType::q5_k, q5_k}, Decoder{FileDType::q6_k, q6_k}};

}  // namespace

void decode_blocks(FileDType type, std::span<const std::byte> blocks, std::span<float> out) {
  const auto row =
      std::find_if(kDecoders.begin(), kDecoders.end(), [&](const Decoder& d) { return d.type == type; });
  if (row == kDecoders.end()) throw Error(ErrorCode::internal, "decode_blocks: not a type of blocks");
  const auto values = static_cast<size_t>(block_values(type));
  for (size_t i = 0; i < out.size() / values; ++i)
    row->block(blocks.data() + i * size_of(type), out.data() + i * values);
}

}  // namespace vkflux::io
