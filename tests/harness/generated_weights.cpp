#include "tests/harness/generated_weights.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <vector>

namespace vkflux::test {
namespace {

uint64_t fnv1a(std::string_view text) {
  uint64_t h = 0xcbf29ce484222325ull;
  for (const char c : text) h = (h ^ static_cast<uint8_t>(c)) * 0x100000001b3ull;
  return h;
}

uint64_t splitmix(uint64_t key, uint64_t i) {
  uint64_t x = key + (i + 1) * 0x9e3779b97f4a7c15ull;
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ x >> 27) * 0x94d049bb133111ebull;
  return x ^ x >> 31;
}

// What a tensor's values have in common.
struct Rule {
  uint64_t key;
  int significant;
  float scale, offset;

  Rule(uint64_t seed, const std::string& part, const io::TensorInfo& t, int bits)
      : key(seed + fnv1a(part + "/" + t.name)) {
    const bool matrix = t.shape.size() > 1;
    significant = matrix ? bits : 8;
    const double inputs = matrix ? static_cast<double>(t.numel() / t.shape[0]) : 1;
    const double deviation = significant == 4 ? 9.2 : 147.2;
    const double exponent = std::floor(0.5 - std::log2(deviation * std::sqrt(inputs)));
    scale = matrix ? static_cast<float>(std::exp2(significant == 4 ? std::max(exponent, -9.0) : exponent))
                   : 0x1p-12f;
    offset = matrix || t.name.ends_with("bias") ? 0.0f : 1.0f;
  }
  float value(int top) const { return static_cast<float>(2 * top + 1 - (1 << significant)) * scale + offset; }
  /// fn(i, top) for the numbers [first, first + count): what values are made of. Of four bits sixteen come
  /// from one number of the generator.
  template <class Fn>
  void each(uint64_t first, uint64_t count, const Fn& fn) const {
    uint64_t word = 0;
    for (uint64_t i = 0; i < count; ++i) {
      const uint64_t at = first + i;
      if (significant == 8) {
        fn(i, static_cast<int>(splitmix(key, at) >> 56));
        continue;
      }
      if (i == 0 || at % 16 == 0) word = splitmix(key, at / 16);
      fn(i, static_cast<int>(word >> at % 16 * 4 & 15));
    }
  }
};

/// A number of four significant bits that isn't below 2^-9, or 0.
uint8_t to_f8_e4m3(float x) {
  const uint8_t sign = x < 0 ? 0x80 : 0;
  int exponent = 0;
  const float fraction = std::frexp(std::fabs(x), &exponent);  // in [1/2, 1)
  if (exponent < -5) return static_cast<uint8_t>(sign | static_cast<int>(std::fabs(x) * 0x1p9f));
  return static_cast<uint8_t>(sign | (exponent + 6) << 3 | (static_cast<int>(fraction * 16) - 8));
}

}  // namespace

GeneratedWeights::GeneratedWeights(uint64_t seed, const std::string& part, const io::Json& shapes,
                                   int significant)
    : TensorSource(part), seed_(seed), significant_(significant) {
  for (const auto& [name, shape] : shapes.items()) {
    io::TensorInfo t;
    t.name = name;
    t.shape = shape.get<std::vector<int64_t>>();
    const io::FileDType matrices = significant == 4 ? io::FileDType::f8_e4m3 : io::FileDType::bf16;
    t.dtype = t.shape.size() > 1 ? matrices : io::FileDType::f32;
    t.end = static_cast<uint64_t>(t.numel()) * io::size_of(t.dtype);
    tensors_.emplace(name, t);
  }
}

uint64_t GeneratedWeights::sum_of_bits() const {
  uint64_t sum = 0;
  for (const auto& [name, t] : tensors_) {
    const Rule rule(seed_, path_, t, significant_);
    rule.each(0, static_cast<uint64_t>(t.numel()),
              [&](uint64_t, int top) { sum += std::bit_cast<uint32_t>(rule.value(top)); });
  }
  return sum;
}

void GeneratedWeights::read_range(const io::TensorInfo& t, uint64_t offset, std::span<std::byte> out) const {
  const Rule rule(seed_, path_, t, significant_);
  const size_t size = io::size_of(t.dtype);
  std::array<std::byte, 16> f8{};
  for (int top = 0; size == 1 && top < 16; ++top)
    f8[static_cast<size_t>(top)] = static_cast<std::byte>(to_f8_e4m3(rule.value(top)));
  rule.each(offset / size, out.size() / size, [&](uint64_t i, int top) {
    if (size == 1) {
      out[i] = f8[static_cast<size_t>(top)];
      return;
    }
    const uint32_t bits = std::bit_cast<uint32_t>(rule.value(top));
    if (size == 4) {
      std::memcpy(&out[4 * i], &bits, 4);
    } else {
      const auto upper = static_cast<uint16_t>(bits >> 16);  // eight bits of a mantissa: nothing is lost
      std::memcpy(&out[2 * i], &upper, 2);
    }
  });
}

}  // namespace vkflux::test
