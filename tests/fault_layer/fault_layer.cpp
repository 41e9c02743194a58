// A Vulkan layer that lets the driver fail on demand, so that what happens then can be tested on the programs
// as they are. It takes its orders from the environment:
//   VKFLUX_FAULT_LOST_AT=N     the Nth submission and all after it return VK_ERROR_DEVICE_LOST
//   VKFLUX_FAULT_MEMORY_AT=N   the Nth allocation of memory and all after it return
//   VK_ERROR_OUT_OF_DEVICE_MEMORY
// One device at a time.
#include <vulkan/vk_layer.h>
#include <vulkan/vulkan.h>

#include <atomic>
#include <cstdlib>
#include <cstring>

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

PFN_vkGetInstanceProcAddr next_instance_proc = nullptr;
PFN_vkGetDeviceProcAddr next_device_proc = nullptr;
PFN_vkQueueSubmit next_submit = nullptr;
PFN_vkAllocateMemory next_allocate = nullptr;
std::atomic<long> submits{0}, allocations{0};

/// Whether the call counted by `count` is at or past the number that the environment names.
bool due(std::atomic<long>& count, const char* variable) {
  const char* at = std::getenv(variable);
  return at && ++count >= std::atol(at);
}

VKAPI_ATTR VkResult VKAPI_CALL submit(VkQueue queue, uint32_t n, const VkSubmitInfo* info, VkFence fence) {
  if (due(submits, "VKFLUX_FAULT_LOST_AT")) return VK_ERROR_DEVICE_LOST;
  return next_submit(queue, n, info, fence);
}

VKAPI_ATTR VkResult VKAPI_CALL allocate(VkDevice device, const VkMemoryAllocateInfo* info,
                                        const VkAllocationCallbacks* callbacks, VkDeviceMemory* memory) {
  if (due(allocations, "VKFLUX_FAULT_MEMORY_AT")) return VK_ERROR_OUT_OF_DEVICE_MEMORY;
  return next_allocate(device, info, callbacks, memory);
}

/// The link of the loader's chain in a create-info; `sType` says whose.
template <class LayerCreateInfo>
LayerCreateInfo* link_of(const void* chain, VkStructureType type) {
  for (auto* x = static_cast<const VkBaseInStructure*>(chain); x; x = x->pNext) {
    auto* link = reinterpret_cast<LayerCreateInfo*>(const_cast<VkBaseInStructure*>(x));
    if (x->sType == type && link->function == VK_LAYER_LINK_INFO) return link;
  }
  return nullptr;
}

VKAPI_ATTR VkResult VKAPI_CALL create_instance(const VkInstanceCreateInfo* info,
                                               const VkAllocationCallbacks* callbacks, VkInstance* instance) {
  auto* link = link_of<VkLayerInstanceCreateInfo>(info->pNext, VK_STRUCTURE_TYPE_LOADER_INSTANCE_CREATE_INFO);
  if (!link) return VK_ERROR_INITIALIZATION_FAILED;
  next_instance_proc = link->u.pLayerInfo->pfnNextGetInstanceProcAddr;
  link->u.pLayerInfo = link->u.pLayerInfo->pNext;
  const auto create = reinterpret_cast<PFN_vkCreateInstance>(next_instance_proc(nullptr, "vkCreateInstance"));
  return create(info, callbacks, instance);
}

VKAPI_ATTR VkResult VKAPI_CALL create_device(VkPhysicalDevice physical, const VkDeviceCreateInfo* info,
                                             const VkAllocationCallbacks* callbacks, VkDevice* device) {
  auto* link = link_of<VkLayerDeviceCreateInfo>(info->pNext, VK_STRUCTURE_TYPE_LOADER_DEVICE_CREATE_INFO);
  if (!link) return VK_ERROR_INITIALIZATION_FAILED;
  const auto instance_proc = link->u.pLayerInfo->pfnNextGetInstanceProcAddr;
  next_device_proc = link->u.pLayerInfo->pfnNextGetDeviceProcAddr;
  link->u.pLayerInfo = link->u.pLayerInfo->pNext;
  const auto create = reinterpret_cast<PFN_vkCreateDevice>(instance_proc(nullptr, "vkCreateDevice"));
  const VkResult result = create(physical, info, callbacks, device);
  if (result != VK_SUCCESS) return result;
  next_submit = reinterpret_cast<PFN_vkQueueSubmit>(next_device_proc(*device, "vkQueueSubmit"));
  next_allocate = reinterpret_cast<PFN_vkAllocateMemory>(next_device_proc(*device, "vkAllocateMemory"));
  return VK_SUCCESS;
}

}  // namespace

EXPORT VKAPI_ATTR PFN_vkVoidFunction VKAPI_CALL fault_GetDeviceProcAddr(VkDevice device, const char* name) {
  if (!std::strcmp(name, "vkGetDeviceProcAddr"))
    return reinterpret_cast<PFN_vkVoidFunction>(fault_GetDeviceProcAddr);
  if (!std::strcmp(name, "vkQueueSubmit")) return reinterpret_cast<PFN_vkVoidFunction>(submit);
  if (!std::strcmp(name, "vkAllocateMemory")) return reinterpret_cast<PFN_vkVoidFunction>(allocate);
  return next_device_proc(device, name);
}

EXPORT VKAPI_ATTR PFN_vkVoidFunction VKAPI_CALL fault_GetInstanceProcAddr(VkInstance instance,
                                                                          const char* name) {
  if (!std::strcmp(name, "vkGetInstanceProcAddr"))
    return reinterpret_cast<PFN_vkVoidFunction>(fault_GetInstanceProcAddr);
  if (!std::strcmp(name, "vkCreateInstance")) return reinterpret_cast<PFN_vkVoidFunction>(create_instance);
  if (!std::strcmp(name, "vkCreateDevice")) return reinterpret_cast<PFN_vkVoidFunction>(create_device);
  if (!std::strcmp(name, "vkGetDeviceProcAddr"))
    return reinterpret_cast<PFN_vkVoidFunction>(fault_GetDeviceProcAddr);
  return next_instance_proc ? next_instance_proc(instance, name) : nullptr;
}

EXPORT VKAPI_ATTR VkResult VKAPI_CALL vkNegotiateLoaderLayerInterfaceVersion(VkNegotiateLayerInterface* v) {
  v->loaderLayerInterfaceVersion = 2;
  v->pfnGetInstanceProcAddr = fault_GetInstanceProcAddr;
  v->pfnGetDeviceProcAddr = fault_GetDeviceProcAddr;
  v->pfnGetPhysicalDeviceProcAddr = nullptr;
  return VK_SUCCESS;
}
