#include "vk/features.h"

namespace vkflux {

template <class T>
void DeviceFeatures::add(T& feature, const char* extension) {
  feature.pNext = core_.pNext;
  core_.pNext = &feature;
  extensions_.push_back(extension);
}

DeviceFeatures::DeviceFeatures(const InstanceFunctions& vk, VkPhysicalDevice physical, const Caps& caps,
                               bool statistics) {
  VkPhysicalDevice16BitStorageFeatures have16{};
  have16.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_16BIT_STORAGE_FEATURES;
  VkPhysicalDeviceVulkan12Features have{};
  have.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES;
  have.pNext = &have16;
  VkPhysicalDeviceFeatures2 query{};
  query.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2;
  query.pNext = &have;
  vk.vkGetPhysicalDeviceFeatures2(physical, &query);

  storage_.sType = have16.sType;
  storage_.storageBuffer16BitAccess = have16.storageBuffer16BitAccess;
  all_.sType = query.sType;
  all_.pNext = &core_;
  all_.features.shaderInt64 = query.features.shaderInt64;
  core_.sType = have.sType;
  core_.pNext = &storage_;
  core_.timelineSemaphore = VK_TRUE;
  core_.shaderFloat16 = have.shaderFloat16;
  core_.shaderInt8 = have.shaderInt8;
  core_.storageBuffer8BitAccess = have.storageBuffer8BitAccess;
  if (caps.push_descriptor) extensions_.push_back(VK_KHR_PUSH_DESCRIPTOR_EXTENSION_NAME);
  if (caps.full_subgroups) {
    subgroup_size_.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_FEATURES;
    subgroup_size_.computeFullSubgroups = VK_TRUE;
    subgroup_size_.subgroupSizeControl = caps.min_subgroup_size ? VK_TRUE : VK_FALSE;
    add(subgroup_size_, VK_EXT_SUBGROUP_SIZE_CONTROL_EXTENSION_NAME);
  }
  if (caps.coopmat) {
    core_.vulkanMemoryModel = VK_TRUE;             // cooperative-matrix modules are of that model
    core_.vulkanMemoryModelDeviceScope = VK_TRUE;  // of atomics, in every module of such a device
    matrix_.sType = kStructureCooperativeMatrixFeatures;
    matrix_.cooperativeMatrix = VK_TRUE;
    add(matrix_, VK_KHR_COOPERATIVE_MATRIX_EXTENSION_NAME);
  }
  if (caps.bf16) {
    bf16_.sType = kStructureBfloat16Features;
    bf16_.shaderBFloat16Type = bf16_.shaderBFloat16CooperativeMatrix = VK_TRUE;
    add(bf16_, VK_KHR_SHADER_BFLOAT16_EXTENSION_NAME);
  }
  if (statistics && caps.pipeline_statistics) {
    statistics_.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PIPELINE_EXECUTABLE_PROPERTIES_FEATURES_KHR;
    statistics_.pipelineExecutableInfo = VK_TRUE;
    add(statistics_, VK_KHR_PIPELINE_EXECUTABLE_PROPERTIES_EXTENSION_NAME);
  }
}

}  // namespace vkflux
