// Declarations of extensions that are newer than the Vulkan headers of some distributions, so that no newer
// headers are needed to build. Layouts and numbers are those of the Vulkan registry.
#pragma once

#include <vulkan/vulkan.h>

#ifndef VK_KHR_cooperative_matrix
#define VK_KHR_cooperative_matrix 1
#define VK_KHR_COOPERATIVE_MATRIX_EXTENSION_NAME "VK_KHR_cooperative_matrix"
using VkComponentTypeKHR = int;
using VkScopeKHR = int;
struct VkCooperativeMatrixPropertiesKHR {
  VkStructureType sType;
  void* pNext;
  uint32_t MSize, NSize, KSize;
  VkComponentTypeKHR AType, BType, CType, ResultType;
  VkBool32 saturatingAccumulation;
  VkScopeKHR scope;
};
struct VkPhysicalDeviceCooperativeMatrixFeaturesKHR {
  VkStructureType sType;
  void* pNext;
  VkBool32 cooperativeMatrix, cooperativeMatrixRobustBufferAccess;
};
using PFN_vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR =
    VkResult(VKAPI_PTR*)(VkPhysicalDevice, uint32_t*, VkCooperativeMatrixPropertiesKHR*);
#endif

#ifndef VK_KHR_shader_bfloat16
#define VK_KHR_shader_bfloat16 1
#define VK_KHR_SHADER_BFLOAT16_EXTENSION_NAME "VK_KHR_shader_bfloat16"
struct VkPhysicalDeviceShaderBfloat16FeaturesKHR {
  VkStructureType sType;
  void* pNext;
  VkBool32 shaderBFloat16Type, shaderBFloat16DotProduct, shaderBFloat16CooperativeMatrix;
};
#endif

namespace vkflux {

constexpr auto kStructureCooperativeMatrixFeatures = static_cast<VkStructureType>(1000506000);
constexpr auto kStructureCooperativeMatrixProperties = static_cast<VkStructureType>(1000506001);
constexpr auto kStructureBfloat16Features = static_cast<VkStructureType>(1000141000);
constexpr auto kComponentF16 = static_cast<VkComponentTypeKHR>(0);
constexpr auto kComponentF32 = static_cast<VkComponentTypeKHR>(1);
constexpr auto kComponentBf16 = static_cast<VkComponentTypeKHR>(1000141000);
constexpr auto kScopeSubgroup = static_cast<VkScopeKHR>(3);

}  // namespace vkflux
