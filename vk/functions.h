// The Vulkan entry points used, loaded per instance and per device: nothing global, so a host that brings its
// own loader and its own device can live beside us.
#pragma once

#define VK_NO_PROTOTYPES
#include <vulkan/vulkan.h>

#include "vk/extension_structs.h"

namespace vkflux {

// clang-format off
#define VKFLUX_GLOBAL_FUNCTIONS(X) \
  X(vkCreateInstance) X(vkEnumerateInstanceVersion) X(vkEnumerateInstanceLayerProperties) \
  X(vkEnumerateInstanceExtensionProperties)
#define VKFLUX_INSTANCE_FUNCTIONS(X) \
  X(vkDestroyInstance) X(vkEnumeratePhysicalDevices) X(vkGetPhysicalDeviceProperties2) X(vkGetPhysicalDeviceFeatures2) \
  X(vkGetPhysicalDeviceMemoryProperties2) X(vkGetPhysicalDeviceQueueFamilyProperties) \
  X(vkEnumerateDeviceExtensionProperties) X(vkCreateDevice) X(vkGetDeviceProcAddr)
#define VKFLUX_INSTANCE_OPTIONAL(X) \
  X(vkCreateDebugUtilsMessengerEXT) X(vkDestroyDebugUtilsMessengerEXT) \
  X(vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR)
#define VKFLUX_DEVICE_FUNCTIONS(X) \
  X(vkDestroyDevice) X(vkGetDeviceQueue) X(vkQueueSubmit) \
  X(vkAllocateMemory) X(vkFreeMemory) X(vkMapMemory) X(vkCreateBuffer) X(vkDestroyBuffer) X(vkBindBufferMemory) \
  X(vkGetBufferMemoryRequirements) X(vkCreateBufferView) X(vkDestroyBufferView) \
  X(vkCreateShaderModule) X(vkDestroyShaderModule) X(vkCreateDescriptorSetLayout) X(vkDestroyDescriptorSetLayout) \
  X(vkCreatePipelineLayout) X(vkDestroyPipelineLayout) X(vkCreateComputePipelines) X(vkDestroyPipeline) \
  X(vkCreatePipelineCache) X(vkDestroyPipelineCache) X(vkGetPipelineCacheData) \
  X(vkCreateCommandPool) X(vkDestroyCommandPool) X(vkResetCommandPool) X(vkAllocateCommandBuffers) \
  X(vkBeginCommandBuffer) X(vkEndCommandBuffer) X(vkCmdBindPipeline) X(vkCmdBindDescriptorSets) X(vkCmdPushConstants) \
  X(vkCmdDispatchBase) X(vkCmdPipelineBarrier) X(vkCmdCopyBuffer) X(vkCmdFillBuffer) X(vkCmdExecuteCommands) \
  X(vkCreateQueryPool) X(vkDestroyQueryPool) X(vkCmdResetQueryPool) X(vkCmdWriteTimestamp) X(vkGetQueryPoolResults) \
  X(vkCreateDescriptorPool) X(vkDestroyDescriptorPool) X(vkResetDescriptorPool) X(vkAllocateDescriptorSets) \
  X(vkUpdateDescriptorSets) X(vkCreateSemaphore) X(vkDestroySemaphore) X(vkWaitSemaphores) X(vkGetSemaphoreCounterValue)
#define VKFLUX_DEVICE_OPTIONAL(X) \
  X(vkCmdPushDescriptorSetKHR) X(vkGetPipelineExecutablePropertiesKHR) X(vkGetPipelineExecutableStatisticsKHR)

#define VKFLUX_DECLARE(f) PFN_##f f = nullptr;
struct InstanceFunctions { VKFLUX_INSTANCE_FUNCTIONS(VKFLUX_DECLARE) VKFLUX_INSTANCE_OPTIONAL(VKFLUX_DECLARE) };
struct DeviceFunctions { VKFLUX_DEVICE_FUNCTIONS(VKFLUX_DECLARE) VKFLUX_DEVICE_OPTIONAL(VKFLUX_DECLARE) };
#undef VKFLUX_DECLARE
// clang-format on

/// Fill the tables; Error unsupported names the first required entry point that is missing.
InstanceFunctions load_instance_functions(PFN_vkGetInstanceProcAddr get, VkInstance instance);
DeviceFunctions load_device_functions(PFN_vkGetDeviceProcAddr get, VkDevice device);

/// Throws device_lost, out_of_device_memory, ... for anything but VK_SUCCESS; `what` names the call.
void check(VkResult result, const char* what);

}  // namespace vkflux
