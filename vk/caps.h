// What a device can do, and the class of device that chooses kernel structures.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "vk/functions.h"

namespace vkflux {

/// Decides which kernel structure is fast; never what is correct. `cpu`: Vulkan on a CPU (lavapipe,
/// SwiftShader).
enum class DeviceClass { cpu, nvidia, amd, intel, other };
std::string_view name(DeviceClass c);

/// Sizes of a product of 16-bit matrices, M x K by K x N, with f32 sums that a subgroup computes together.
struct MatrixShape {
  uint32_t m = 0, n = 0, k = 0;
};

struct Caps {
  std::string device_name, driver_name, driver_info;
  uint32_t api_version = 0, vendor_id = 0, device_id = 0;
  uint8_t pipeline_cache_uuid[VK_UUID_SIZE] = {};
  VkPhysicalDeviceType type = VK_PHYSICAL_DEVICE_TYPE_OTHER;
  DeviceClass device_class = DeviceClass::other;

  // limits
  uint64_t max_storage_buffer_range = 0;  // bytes of one storage-buffer binding
  uint64_t max_texel_elements = 0;        // texels of one texel-buffer view
  uint64_t max_allocation = 0;            // bytes of one allocation
  uint64_t buffer_alignment = 0;          // bytes; every binding offset is a multiple
  uint32_t max_push_constants = 0, max_invocations = 0, max_shared_memory = 0;
  uint32_t max_group_count[3] = {};
  uint32_t subgroup_size = 0;
  bool full_subgroups = false;                            // a kernel can ask for full ones
  uint32_t min_subgroup_size = 0, max_subgroup_size = 0;  // that a kernel can ask for; 0: it can't
  float timestamp_period = 0;                             // ns per tick, 0: no timestamps
  uint64_t device_memory = 0;                             // bytes of the largest device-local heap

  // features
  bool push_descriptor = false, subgroup_shuffle = false, subgroup_arithmetic = false;
  bool fp16 = false, int8 = false, int64 = false;    // shader arithmetic
  bool coopmat = false, bf16 = false, dot = false;   // bf16: as the type of cooperative matrices
  std::vector<MatrixShape> f16_shapes, bf16_shapes;  // in the driver's order
  bool pipeline_statistics = false;
  bool memory_budget = false;

  /// True when every feature of the comma-separated list is there (the `requires` of a shader variant).
  bool has(std::string_view features) const;
  /// Subgroup-wide kernels with texel loads: what CPU implementations run fast.
  bool simd() const {
    return subgroup_shuffle && (subgroup_size == 4 || subgroup_size == 8 || subgroup_size == 16);
  }
};

Caps query_caps(const InstanceFunctions& vk, VkPhysicalDevice physical);

}  // namespace vkflux
