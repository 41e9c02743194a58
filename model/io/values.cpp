#include "model/io/values.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>

#include "autograd/blocks.h"
#include "autograd/packed.h"
#include "vk/error.h"

namespace vkflux::io {
namespace {

// One loop per pair of types, without branches, so that compilers make vector code of it.
template <class In, class Out, class Fn>
void each(std::span<const std::byte> in, std::span<std::byte> out, Fn fn) {
  const size_t n = out.size() / sizeof(Out);
  const std::byte* from = in.data();
  std::byte* to = out.data();
  for (size_t i = 0; i < n; ++i) {
    In x;
    std::memcpy(&x, from + i * sizeof(In), sizeof(In));
    const Out y = fn(x);
    std::memcpy(to + i * sizeof(Out), &y, sizeof(Out));
  }
}

// Whether a word of `in` has all bits of `exponent`.
template <class Word>
bool any_special(std::span<const std::byte> in, Word exponent) {
  Word found = 0;
  for (size_t i = 0; i < in.size() / sizeof(Word); ++i) {
    Word x;
    std::memcpy(&x, in.data() + i * sizeof(Word), sizeof(Word));
    found |= static_cast<Word>((x & exponent) == exponent);
  }
  return found != 0;
}

// Exact for all finite values: the product brings f16's exponents, and its subnormals, to those of f32.
float finite_f16(uint16_t h) {
  const auto bits = static_cast<uint32_t>(h & 0x7fffu) << 13;
  const float x = std::bit_cast<float>(bits) * 0x1p112f;
  return std::bit_cast<float>(std::bit_cast<uint32_t>(x) | static_cast<uint32_t>(h & 0x8000u) << 16);
}

bool finite(FileDType from, std::span<const std::byte> in) {
  if (from == FileDType::f32) return !any_special<uint32_t>(in, 0x7f800000u);
  if (from == FileDType::f16) return !any_special<uint16_t>(in, 0x7c00u);
  return !any_special<uint16_t>(in, 0x7f80u);
}

// Through an array of floats, for `out` is bytes.
void widen_blocks(FileDType from, std::span<const std::byte> in, std::span<std::byte> out) {
  std::array<float, 256> values;
  const size_t unit = size_of(from), most = sizeof(values);
  const auto block = static_cast<size_t>(block_values(from));
  for (size_t at = 0; at < out.size(); at += most) {
    const size_t n = std::min(most, out.size() - at) / sizeof(float);
    decode_blocks(device_type(from), in.subspan(at / sizeof(float) / block * unit, n / block * unit),
                  std::span(values).first(n));
    std::memcpy(out.data() + at, values.data(), n * sizeof(float));
  }
}

void widen(FileDType from, std::span<const std::byte> in, std::span<std::byte> out, bool special) {
  switch (from) {
    case FileDType::f32:
      std::memcpy(out.data(), in.data(), out.size());
      break;
    case FileDType::f16:
      special ? each<uint16_t, float>(in, out, &from_f16) : each<uint16_t, float>(in, out, &finite_f16);
      break;
    case FileDType::bf16:
      each<uint16_t, uint32_t>(in, out, [](uint16_t h) { return static_cast<uint32_t>(h) << 16; });
      break;
    case FileDType::f64:
      each<double, float>(in, out, [](double d) { return static_cast<float>(d); });
      break;
    case FileDType::f8_e4m3:
      each<uint8_t, float>(in, out, [](uint8_t b) { return from_f8(DType::f8_e4m3, b); });
      break;
    case FileDType::f8_e5m2:
      each<uint8_t, float>(in, out, [](uint8_t b) { return from_f8(DType::f8_e5m2, b); });
      break;
    default:
      if (block_values(from) > 1) return widen_blocks(from, in, out);
      throw Error(ErrorCode::format, fmt::format("{} values aren't floating-point numbers", name(from)));
  }
}

bool same(FileDType a, DType b) {
  return (a == FileDType::f32 && b == DType::f32) || (a == FileDType::f16 && b == DType::f16) ||
         (a == FileDType::bf16 && b == DType::bf16);
}

}  // namespace

DType device_type(FileDType stored) {
  switch (stored) {
    case FileDType::f16:
      return DType::f16;
    case FileDType::bf16:
      return DType::bf16;
    case FileDType::f8_e4m3:
      return DType::f8_e4m3;
    case FileDType::f8_e5m2:
      return DType::f8_e5m2;
    case FileDType::q4_0:
      return DType::q4_0;
    case FileDType::q4_1:
      return DType::q4_1;
    case FileDType::q5_0:
      return DType::q5_0;
    case FileDType::q5_1:
      return DType::q5_1;
    case FileDType::q8_0:
      return DType::q8_0;
    case FileDType::q2_k:
      return DType::q2_k;
    case FileDType::q3_k:
      return DType::q3_k;
    case FileDType::q4_k:
      return DType::q4_k;
    case FileDType::q5_k:
      return DType::q5_k;
    case FileDType::q6_k:
      return DType::q6_k;
    default:
      return DType::f32;
  }
}

bool convert(FileDType from, std::span<const std::byte> in, DType to, std::span<std::byte> out) {
  if (out.empty()) return true;
  const bool plain = from == FileDType::f32 || from == FileDType::f16 || from == FileDType::bf16;
  bool ok = !plain || finite(from, in);
  if (same(from, to)) {
    std::memcpy(out.data(), in.data(), out.size());
    return ok;
  }
  if (to == DType::f32) {
    widen(from, in, out, !ok);
    return ok && (plain || finite(FileDType::f32, out));
  }
  // By way of f32, a piece at a time.
  std::array<std::byte, 4096> wide;
  const size_t unit = size_of(from), most = wide.size() / 4;  // a multiple of all blocks
  const auto block = static_cast<size_t>(block_values(from));
  for (size_t at = 0, n = out.size() / 2; at < n; at += most) {
    const size_t count = std::min(most, n - at);
    const std::span<std::byte> piece(wide.data(), 4 * count), half = out.subspan(2 * at, 2 * count);
    widen(from, in.subspan(at / block * unit, count / block * unit), piece, !ok);
    ok = ok && (plain || finite(FileDType::f32, piece));
    to == DType::f16 ? each<float, uint16_t>(piece, half, &to_f16)
                     : each<float, uint16_t>(piece, half, &to_bf16);
  }
  return ok;
}

}  // namespace vkflux::io
