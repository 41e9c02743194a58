#include "vk/caps.h"

#include <algorithm>
#include <cstring>
#include <vector>

namespace vkflux {
namespace {

DeviceClass classify(VkPhysicalDeviceType type, uint32_t vendor) {
  if (type == VK_PHYSICAL_DEVICE_TYPE_CPU) return DeviceClass::cpu;
  switch (vendor) {
    case 0x10DE:
      return DeviceClass::nvidia;
    case 0x1002:
      return DeviceClass::amd;
    case 0x8086:
      return DeviceClass::intel;
    default:
      return DeviceClass::other;
  }
}

struct Extensions {
  std::vector<VkExtensionProperties> list;

  bool has(const char* name) const {
    return std::any_of(list.begin(), list.end(),
                       [&](const auto& x) { return std::strcmp(x.extensionName, name) == 0; });
  }
};

template <class T>
T query_feature(const InstanceFunctions& vk, VkPhysicalDevice physical, VkStructureType type) {
  T feature{};
  feature.sType = type;
  VkPhysicalDeviceFeatures2 query{};
  query.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2;
  query.pNext = &feature;
  vk.vkGetPhysicalDeviceFeatures2(physical, &query);
  return feature;
}

void query_subgroup_sizes(const InstanceFunctions& vk, VkPhysicalDevice physical, Caps& c) {
  const auto f = query_feature<VkPhysicalDeviceSubgroupSizeControlFeatures>(
      vk, physical, VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_FEATURES);
  c.full_subgroups = f.computeFullSubgroups;
  if (!f.subgroupSizeControl || !f.computeFullSubgroups) return;
  VkPhysicalDeviceSubgroupSizeControlProperties sizes{};
  sizes.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_PROPERTIES;
  VkPhysicalDeviceProperties2 query{};
  query.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2;
  query.pNext = &sizes;
  vk.vkGetPhysicalDeviceProperties2(physical, &query);
  if (!(sizes.requiredSubgroupSizeStages & VK_SHADER_STAGE_COMPUTE_BIT)) return;
  c.min_subgroup_size = sizes.minSubgroupSize;
  c.max_subgroup_size = sizes.maxSubgroupSize;
}

void query_matrices(const InstanceFunctions& vk, VkPhysicalDevice physical, const Extensions& extensions,
                    Caps& c) {
  const auto core = query_feature<VkPhysicalDeviceVulkan12Features>(
      vk, physical, VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES);
  if (!vk.vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR || !core.vulkanMemoryModel ||
      !core.vulkanMemoryModelDeviceScope ||
      !query_feature<VkPhysicalDeviceCooperativeMatrixFeaturesKHR>(vk, physical,
                                                                   kStructureCooperativeMatrixFeatures)
           .cooperativeMatrix) {
    return;
  }
  uint32_t n = 0;
  vk.vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR(physical, &n, nullptr);
  VkCooperativeMatrixPropertiesKHR empty{};
  empty.sType = kStructureCooperativeMatrixProperties;
  std::vector<VkCooperativeMatrixPropertiesKHR> all(n, empty);
  vk.vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR(physical, &n, all.data());
  const bool bf16_type =
      extensions.has(VK_KHR_SHADER_BFLOAT16_EXTENSION_NAME) &&
      query_feature<VkPhysicalDeviceShaderBfloat16FeaturesKHR>(vk, physical, kStructureBfloat16Features)
          .shaderBFloat16CooperativeMatrix;
  for (const VkCooperativeMatrixPropertiesKHR& p : all) {
    const bool f32_sums = p.CType == kComponentF32 && p.ResultType == kComponentF32;
    if (p.scope != kScopeSubgroup || !f32_sums || p.saturatingAccumulation || p.AType != p.BType) continue;
    const MatrixShape shape{p.MSize, p.NSize, p.KSize};
    if (p.AType == kComponentF16) c.f16_shapes.push_back(shape);
    if (p.AType == kComponentBf16 && bf16_type) c.bf16_shapes.push_back(shape);
  }
  // Shaders with cooperative matrices must ask for full subgroups.
  c.coopmat = !c.f16_shapes.empty() && c.fp16 && c.full_subgroups;
  c.bf16 = c.coopmat && !c.bf16_shapes.empty();
}

}  // namespace

std::string_view name(DeviceClass c) {
  switch (c) {
    case DeviceClass::cpu:
      return "cpu";
    case DeviceClass::nvidia:
      return "nvidia";
    case DeviceClass::amd:
      return "amd";
    case DeviceClass::intel:
      return "intel";
    case DeviceClass::other:
      return "other";
  }
  return "other";
}

bool Caps::has(std::string_view features) const {
  while (!features.empty()) {
    const size_t comma = std::min(features.find(','), features.size());
    const std::string_view f = features.substr(0, comma);
    features.remove_prefix(std::min(comma + 1, features.size()));
    const bool present = f == "fp16"      ? fp16
                         : f == "int8"    ? int8
                         : f == "int64"   ? int64
                         : f == "coopmat" ? coopmat
                         : f == "bf16"    ? bf16
                         : f == "dot"     ? dot
                                          : false;
    if (!present) return false;
  }
  return true;
}

Caps query_caps(const InstanceFunctions& vk, VkPhysicalDevice physical) {
  VkPhysicalDeviceDriverProperties driver{
      VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_DRIVER_PROPERTIES, nullptr, {}, {}, {}, {}};
  VkPhysicalDeviceSubgroupProperties subgroup{};
  subgroup.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_PROPERTIES;
  subgroup.pNext = &driver;
  VkPhysicalDeviceMaintenance3Properties m3{};
  m3.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MAINTENANCE_3_PROPERTIES;
  m3.pNext = &subgroup;
  VkPhysicalDeviceProperties2 props{};
  props.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2;
  props.pNext = &m3;
  vk.vkGetPhysicalDeviceProperties2(physical, &props);

  VkPhysicalDeviceVulkan12Features f12{};
  f12.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES;
  VkPhysicalDeviceFeatures2 features{};
  features.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2;
  features.pNext = &f12;
  vk.vkGetPhysicalDeviceFeatures2(physical, &features);

  uint32_t n = 0;
  vk.vkEnumerateDeviceExtensionProperties(physical, nullptr, &n, nullptr);
  Extensions extensions{std::vector<VkExtensionProperties>(n)};
  vk.vkEnumerateDeviceExtensionProperties(physical, nullptr, &n, extensions.list.data());

  const VkPhysicalDeviceProperties& p = props.properties;
  const VkPhysicalDeviceLimits& l = p.limits;
  Caps c;
  c.device_name = p.deviceName;
  c.driver_name = driver.driverName;
  c.driver_info = driver.driverInfo;
  c.api_version = p.apiVersion;
  c.vendor_id = p.vendorID;
  c.device_id = p.deviceID;
  std::memcpy(c.pipeline_cache_uuid, p.pipelineCacheUUID, VK_UUID_SIZE);
  c.type = p.deviceType;
  c.device_class = classify(p.deviceType, p.vendorID);
  c.max_storage_buffer_range = l.maxStorageBufferRange;
  c.max_texel_elements = l.maxTexelBufferElements;
  c.max_allocation = m3.maxMemoryAllocationSize;
  c.buffer_alignment =
      std::max<uint64_t>({l.minStorageBufferOffsetAlignment, l.minTexelBufferOffsetAlignment, 16});
  c.max_push_constants = l.maxPushConstantsSize;
  c.max_invocations = l.maxComputeWorkGroupInvocations;
  c.max_shared_memory = l.maxComputeSharedMemorySize;
  std::copy(l.maxComputeWorkGroupCount, l.maxComputeWorkGroupCount + 3, c.max_group_count);
  c.subgroup_size = subgroup.subgroupSize;
  const bool in_compute = (subgroup.supportedStages & VK_SHADER_STAGE_COMPUTE_BIT) != 0;
  c.subgroup_shuffle = in_compute && (subgroup.supportedOperations & VK_SUBGROUP_FEATURE_SHUFFLE_BIT) != 0;
  c.subgroup_arithmetic =
      in_compute && (subgroup.supportedOperations & VK_SUBGROUP_FEATURE_ARITHMETIC_BIT) != 0;
  c.timestamp_period = l.timestampComputeAndGraphics ? l.timestampPeriod : 0;
  c.push_descriptor = extensions.has(VK_KHR_PUSH_DESCRIPTOR_EXTENSION_NAME);
  c.fp16 = f12.shaderFloat16;
  c.int8 = f12.shaderInt8;
  c.int64 = features.features.shaderInt64;
  c.memory_budget = extensions.has("VK_EXT_memory_budget");
  c.pipeline_statistics = extensions.has(VK_KHR_PIPELINE_EXECUTABLE_PROPERTIES_EXTENSION_NAME);
  if (extensions.has(VK_EXT_SUBGROUP_SIZE_CONTROL_EXTENSION_NAME)) query_subgroup_sizes(vk, physical, c);
  if (extensions.has(VK_KHR_COOPERATIVE_MATRIX_EXTENSION_NAME)) query_matrices(vk, physical, extensions, c);

  VkPhysicalDeviceMemoryProperties2 memory{};
  memory.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_PROPERTIES_2;
  vk.vkGetPhysicalDeviceMemoryProperties2(physical, &memory);
  for (uint32_t i = 0; i < memory.memoryProperties.memoryHeapCount; ++i) {
    const VkMemoryHeap& heap = memory.memoryProperties.memoryHeaps[i];
    if (heap.flags & VK_MEMORY_HEAP_DEVICE_LOCAL_BIT) c.device_memory = std::max(c.device_memory, heap.size);
  }
  return c;
}

}  // namespace vkflux
