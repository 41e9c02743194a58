// The optional features and extensions that are turned on at device creation.
#pragma once

#include <vector>

#include "vk/caps.h"
#include "vk/extension_structs.h"

namespace vkflux {

/// Everything that the caps say the device has and kernels can use; pipeline statistics only when asked for.
class DeviceFeatures {
 public:
  DeviceFeatures(const InstanceFunctions& vk, VkPhysicalDevice physical, const Caps& caps, bool statistics);
  DeviceFeatures(const DeviceFeatures&) = delete;
  DeviceFeatures& operator=(const DeviceFeatures&) = delete;

  const void* chain() const { return &all_; }  // for VkDeviceCreateInfo::pNext
  const std::vector<const char*>& extensions() const { return extensions_; }

 private:
  template <class T>
  void add(T& feature, const char* extension);

  VkPhysicalDeviceFeatures2 all_{};
  VkPhysicalDeviceVulkan12Features core_{};
  VkPhysicalDevice16BitStorageFeatures storage_{};
  VkPhysicalDeviceSubgroupSizeControlFeatures subgroup_size_{};
  VkPhysicalDeviceCooperativeMatrixFeaturesKHR matrix_{};
  VkPhysicalDeviceShaderBfloat16FeaturesKHR bf16_{};
  VkPhysicalDevicePipelineExecutablePropertiesFeaturesKHR statistics_{};
  std::vector<const char*> extensions_;
};

}  // namespace vkflux
