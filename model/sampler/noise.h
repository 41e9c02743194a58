// Starting noise. Three generators; the same seed gives different pictures with each. Every image of a batch
// has its own seed, so it can be made again alone.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "autograd/tensor.h"

namespace vkflux {

enum class NoiseMode {
  counter,   // op::normal on the device: the default
  mersenne,  // MT19937 in f32 as PyTorch's CPU generator and ComfyUI fill a tensor
  philox     // Philox 4x32-10 in double precision, as stable-diffusion.cpp's default
};
/// "counter", "mersenne" or "philox"; error invalid_argument lists them.
NoiseMode parse_noise_mode(const std::string& text);
const char* name(NoiseMode mode);

/// n standard normals of one seed. MT19937 uses the low 32 bits of the seed.
std::vector<float> mersenne_normal(uint64_t seed, size_t n);
/// Draw number `draw` of a Philox stream.
std::vector<float> philox_normal(uint64_t seed, size_t n, uint32_t draw = 0);

/// [seeds, shape...] on the device, one picture for each seed.
Tensor initial_noise(Device& device, std::span<const uint64_t> seeds, const Shape& shape, NoiseMode mode);
/// `n` seeds counted up from the first one.
std::vector<uint64_t> seeds_from(uint64_t first, int64_t n);

}  // namespace vkflux
