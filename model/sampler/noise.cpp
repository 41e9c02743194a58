#include "model/sampler/noise.h"

#include <fmt/format.h>

#include <cmath>
#include <numbers>
#include <random>

#include "autograd/ops.h"
#include "model/philox.h"
#include "vk/error.h"

namespace vkflux {
namespace {

constexpr size_t kBlock = 16;  // values that the Mersenne filler transforms together

/// Uniforms to normals: value j pairs with value j + 8.
void box_muller_block(float* d) {
  for (size_t j = 0; j < kBlock / 2; ++j) {
    const float radius = std::sqrt(-2.0f * std::log(1.0f - d[j]));
    const float angle = 2.0f * std::numbers::pi_v<float> * d[j + kBlock / 2];
    d[j] = radius * std::cos(angle);
    d[j + kBlock / 2] = radius * std::sin(angle);
  }
}

}  // namespace

NoiseMode parse_noise_mode(const std::string& text) {
  for (const NoiseMode m : {NoiseMode::counter, NoiseMode::mersenne, NoiseMode::philox}) {
    if (text == name(m)) return m;
  }
  throw Error(ErrorCode::invalid_argument,
              fmt::format("noise mode \"{}\": known are counter, mersenne and philox", text));
}

const char* name(NoiseMode mode) {
  switch (mode) {
    case NoiseMode::counter:
      return "counter";
    case NoiseMode::mersenne:
      return "mersenne";
    case NoiseMode::philox:
      return "philox";
  }
  return "";
}

std::vector<float> mersenne_normal(uint64_t seed, size_t n) {
  if (n < kBlock) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("the mersenne mode fills {} values or more, not {}", kBlock, n));
  }
  std::mt19937 generator(static_cast<uint32_t>(seed));
  const auto uniform = [&] { return static_cast<float>(generator() & 0xFFFFFFu) * 0x1p-24f; };
  std::vector<float> out(n);
  for (float& x : out) x = uniform();
  for (size_t at = 0; at + kBlock <= n; at += kBlock) box_muller_block(out.data() + at);
  if (n % kBlock) {
    float* tail = out.data() + n - kBlock;
    for (size_t j = 0; j < kBlock; ++j) tail[j] = uniform();
    box_muller_block(tail);
  }
  return out;
}

std::vector<float> philox_normal(uint64_t seed, size_t n, uint32_t draw) {
  if (n > UINT32_MAX)
    throw Error(ErrorCode::invalid_argument, "the philox mode fills at most 2^32 - 1 values");
  std::vector<float> out(n);
  for (size_t i = 0; i < n; ++i) {
    const auto [u, v] = philox_uniform_pair(seed, static_cast<uint32_t>(i), draw);
    out[i] = static_cast<float>(std::sqrt(-2 * std::log(u)) * std::sin(2 * std::numbers::pi * v));
  }
  return out;
}

Tensor initial_noise(Device& device, std::span<const uint64_t> seeds, const Shape& shape, NoiseMode mode) {
  Shape one{1};
  for (const int64_t d : shape) one.push_back(d);
  std::vector<Tensor> images;
  for (const uint64_t s : seeds) {
    if (mode == NoiseMode::counter) {
      images.push_back(op::normal(device, one, s, 0));
      continue;
    }
    const auto n = static_cast<size_t>(shape.numel());
    const std::vector<float> host = mode == NoiseMode::mersenne ? mersenne_normal(s, n) : philox_normal(s, n);
    images.push_back(Tensor::from(device, std::span<const float>(host), one));
  }
  return images.size() == 1 ? images[0] : op::concat(images, 0);
}

std::vector<uint64_t> seeds_from(uint64_t first, int64_t n) {
  std::vector<uint64_t> out;
  for (int64_t i = 0; i < n; ++i) out.push_back(first + static_cast<uint64_t>(i));
  return out;
}

}  // namespace vkflux
