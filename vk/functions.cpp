#include "vk/functions.h"

#include <fmt/format.h>

#include "vk/error.h"

namespace vkflux {
namespace {

template <class F, class Get, class Handle>
F load(Get get, Handle handle, const char* function, bool required) {
  auto f = reinterpret_cast<F>(get(handle, function));
  if (!f && required) {
    throw Error(ErrorCode::unsupported,
                fmt::format("the Vulkan driver lacks {} (Vulkan 1.2 is needed)", function));
  }
  return f;
}

}  // namespace

InstanceFunctions load_instance_functions(PFN_vkGetInstanceProcAddr get, VkInstance instance) {
  InstanceFunctions t;
#define VKFLUX_LOAD(f) t.f = load<PFN_##f>(get, instance, #f, true);
  VKFLUX_INSTANCE_FUNCTIONS(VKFLUX_LOAD)
#undef VKFLUX_LOAD
#define VKFLUX_LOAD(f) t.f = load<PFN_##f>(get, instance, #f, false);
  VKFLUX_INSTANCE_OPTIONAL(VKFLUX_LOAD)
#undef VKFLUX_LOAD
  return t;
}

DeviceFunctions load_device_functions(PFN_vkGetDeviceProcAddr get, VkDevice device) {
  DeviceFunctions t;
#define VKFLUX_LOAD(f) t.f = load<PFN_##f>(get, device, #f, true);
  VKFLUX_DEVICE_FUNCTIONS(VKFLUX_LOAD)
#undef VKFLUX_LOAD
#define VKFLUX_LOAD(f) t.f = load<PFN_##f>(get, device, #f, false);
  VKFLUX_DEVICE_OPTIONAL(VKFLUX_LOAD)
#undef VKFLUX_LOAD
  return t;
}

void check(VkResult result, const char* what) {
  if (result == VK_SUCCESS) return;
  switch (result) {
    case VK_ERROR_DEVICE_LOST:
      throw Error(ErrorCode::device_lost, fmt::format("{}: the device was lost", what));
    case VK_ERROR_OUT_OF_DEVICE_MEMORY:
    case VK_ERROR_TOO_MANY_OBJECTS:
      throw Error(ErrorCode::out_of_device_memory, fmt::format("{}: out of device memory", what));
    case VK_ERROR_OUT_OF_HOST_MEMORY:
      throw Error(ErrorCode::out_of_host_memory, fmt::format("{}: out of host memory", what));
    default:
      throw Error(ErrorCode::internal,
                  fmt::format("{} failed with VkResult {}", what, static_cast<int>(result)));
  }
}

}  // namespace vkflux
