// What a driver's compiler made of kernels, in the same terms for every driver.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "vk/kernel.h"

namespace vkflux::bench {

/// Of one program; what a driver doesn't tell is absent.
struct Compiled {
  std::string kernel;  // "matmul:vec4"
  std::vector<uint32_t> spec;
  uint32_t subgroup_size = 0;
  std::optional<double> registers;  // of 32 bits, per invocation (Intel: of a whole register, per subgroup)
  std::optional<double> spills;     // registers, or accesses to spilled registers
  std::optional<double> scratch_bytes, shared_bytes;
  std::optional<double> occupancy;  // subgroups that a scheduler (AMD: SIMD, NVIDIA: SM) holds at once
  std::optional<double> instructions;
};

/// One row per program of every kernel; none for kernels made without statistics.
std::vector<Compiled> compiled(const std::vector<const Kernel*>& kernels);

}  // namespace vkflux::bench
