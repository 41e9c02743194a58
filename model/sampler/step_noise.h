// Fresh noise for the steps of samplers that take some: a function of each picture's own seed and the step.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "model/sampler/noise.h"
#include "model/sampler/solver.h"

namespace vkflux {

/// [seeds, shape...] for every step of a run, of other numbers than initial_noise() of the same seeds.
/// counter: made on the device in each step. philox: draw step + 1, as stable-diffusion.cpp counts. mersenne:
/// one generator of seed + 1 for all steps, as ComfyUI's (equal to PyTorch's where a picture's values are a
/// multiple of 16). Those two are made on the host, many steps at once.
Solver::Noise step_noise(Device& device, std::vector<uint64_t> seeds, Shape shape, NoiseMode mode,
                         int64_t steps);

}  // namespace vkflux
