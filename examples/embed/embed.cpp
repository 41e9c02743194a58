// How a host lends its Vulkan device: it makes its own instance, device and queue through the loader it links
// to, uses them, lets vkflux compute on them, and goes on using them afterwards.
#include <vulkan/vulkan.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <string>
#include <vector>

#include "autograd/ops.h"
#include "autograd/tape.h"
#include "vk/device.h"

namespace {

void check(VkResult result, const char* what) {
  if (result == VK_SUCCESS) return;
  std::fprintf(stderr, "%s failed: %d\n", what, result);
  std::exit(1);
}

/// What an engine or a compositor has anyway.
struct Host {
  VkInstance instance = VK_NULL_HANDLE;
  VkPhysicalDevice physical = VK_NULL_HANDLE;
  VkDevice device = VK_NULL_HANDLE;
  VkQueue queue = VK_NULL_HANDLE;
  uint32_t family = 0;
  std::vector<const char*> extensions;
  bool storage_8bit = false, storage_16bit = false, float16 = false, int8 = false, int64 = false;
  std::mutex queue_mutex;
  VkCommandPool pool = VK_NULL_HANDLE;

  Host() {
    make_instance();
    choose_physical();
    make_device();
    VkCommandPoolCreateInfo info{VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO, nullptr, 0, family};
    check(vkCreateCommandPool(device, &info, nullptr, &pool), "vkCreateCommandPool");
  }

  ~Host() {
    vkDestroyCommandPool(device, pool, nullptr);
    vkDestroyDevice(device, nullptr);
    vkDestroyInstance(instance, nullptr);
  }

  void make_instance() {
    VkApplicationInfo app{
        VK_STRUCTURE_TYPE_APPLICATION_INFO, nullptr, "embed", 1, nullptr, 0, VK_API_VERSION_1_2};
    VkInstanceCreateInfo info{
        VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO, nullptr, 0, &app, 0, nullptr, 0, nullptr};
    check(vkCreateInstance(&info, nullptr, &instance), "vkCreateInstance");
  }

  /// The first device whose name contains $VKFLUX_DEVICE (any without it) and that has Vulkan 1.2.
  void choose_physical() {
    uint32_t n = 0;
    check(vkEnumeratePhysicalDevices(instance, &n, nullptr), "vkEnumeratePhysicalDevices");
    std::vector<VkPhysicalDevice> all(n);
    check(vkEnumeratePhysicalDevices(instance, &n, all.data()), "vkEnumeratePhysicalDevices");
    const char* wanted = std::getenv("VKFLUX_DEVICE");
    for (VkPhysicalDevice p : all) {
      VkPhysicalDeviceProperties properties;
      vkGetPhysicalDeviceProperties(p, &properties);
      if (properties.apiVersion < VK_API_VERSION_1_2) continue;
      if (wanted && *wanted && !std::strstr(properties.deviceName, wanted)) continue;
      physical = p;
      std::printf("host device: %s\n", properties.deviceName);
      return;
    }
    std::fprintf(stderr, "no Vulkan 1.2 device\n");
    std::exit(1);
  }

  void make_device() {
    uint32_t n = 0;
    vkGetPhysicalDeviceQueueFamilyProperties(physical, &n, nullptr);
    std::vector<VkQueueFamilyProperties> families(n);
    vkGetPhysicalDeviceQueueFamilyProperties(physical, &n, families.data());
    while (family + 1 < n && !(families[family].queueFlags & VK_QUEUE_COMPUTE_BIT)) ++family;

    // Everything vkflux can use and the device has. Only the timeline semaphore is required.
    VkPhysicalDeviceVulkan12Features features12{};
    features12.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES;
    VkPhysicalDeviceVulkan11Features features11{};
    features11.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_FEATURES;
    features11.pNext = &features12;
    VkPhysicalDeviceFeatures2 have{VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2, &features11, {}};
    vkGetPhysicalDeviceFeatures2(physical, &have);
    storage_8bit = features12.storageBuffer8BitAccess;
    storage_16bit = features11.storageBuffer16BitAccess;
    float16 = features12.shaderFloat16;
    int8 = features12.shaderInt8;
    int64 = have.features.shaderInt64;
    VkPhysicalDeviceVulkan12Features use12{};
    use12.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES;
    use12.timelineSemaphore = VK_TRUE;
    use12.storageBuffer8BitAccess = storage_8bit;
    use12.shaderFloat16 = float16;
    use12.shaderInt8 = int8;
    VkPhysicalDeviceVulkan11Features use11{};
    use11.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_FEATURES;
    use11.pNext = &use12;
    use11.storageBuffer16BitAccess = storage_16bit;
    VkPhysicalDeviceFeatures2 use{VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2, &use11, {}};
    use.features.shaderInt64 = int64;

    vkEnumerateDeviceExtensionProperties(physical, nullptr, &n, nullptr);
    std::vector<VkExtensionProperties> available(n);
    vkEnumerateDeviceExtensionProperties(physical, nullptr, &n, available.data());
    for (const VkExtensionProperties& e : available) {
      if (!std::strcmp(e.extensionName, VK_KHR_PUSH_DESCRIPTOR_EXTENSION_NAME))
        extensions.push_back(VK_KHR_PUSH_DESCRIPTOR_EXTENSION_NAME);
    }
    const float priority = 1;
    VkDeviceQueueCreateInfo queue_info{
        VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO, nullptr, 0, family, 1, &priority};
    VkDeviceCreateInfo info{};
    info.sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO;
    info.pNext = &use;
    info.queueCreateInfoCount = 1;
    info.pQueueCreateInfos = &queue_info;
    info.enabledExtensionCount = static_cast<uint32_t>(extensions.size());
    info.ppEnabledExtensionNames = extensions.data();
    check(vkCreateDevice(physical, &info, nullptr, &device), "vkCreateDevice");
    vkGetDeviceQueue(device, family, 0, &queue);
  }

  /// The host's own work on the queue: an empty command buffer, waited for.
  void work() {
    VkCommandBufferAllocateInfo allocate{VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO, nullptr, pool,
                                         VK_COMMAND_BUFFER_LEVEL_PRIMARY, 1};
    VkCommandBuffer commands = VK_NULL_HANDLE;
    check(vkAllocateCommandBuffers(device, &allocate, &commands), "vkAllocateCommandBuffers");
    VkCommandBufferBeginInfo begin{VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO, nullptr,
                                   VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT, nullptr};
    check(vkBeginCommandBuffer(commands, &begin), "vkBeginCommandBuffer");
    check(vkEndCommandBuffer(commands), "vkEndCommandBuffer");
    VkSubmitInfo submit{};
    submit.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO;
    submit.commandBufferCount = 1;
    submit.pCommandBuffers = &commands;
    {
      const std::lock_guard<std::mutex> lock(queue_mutex);
      check(vkQueueSubmit(queue, 1, &submit, VK_NULL_HANDLE), "vkQueueSubmit");
      check(vkQueueWaitIdle(queue), "vkQueueWaitIdle");
    }
    vkFreeCommandBuffers(device, pool, 1, &commands);
  }

  /// What vkflux needs to know: enabled features can't be queried.
  vkflux::HostDevice lend() {
    vkflux::HostDevice h;
    h.get_instance_proc_addr = vkGetInstanceProcAddr;
    h.instance = instance;
    h.physical = physical;
    h.device = device;
    h.queue = queue;
    h.queue_family = family;
    h.extensions.assign(extensions.begin(), extensions.end());
    h.timeline_semaphore = true;
    h.storage_8bit = storage_8bit;
    h.storage_16bit = storage_16bit;
    h.float16 = float16;
    h.int8 = int8;
    h.int64 = int64;
    h.lock = [this] { queue_mutex.lock(); };
    h.unlock = [this] { queue_mutex.unlock(); };
    return h;
  }
};

/// Largest error of the gradient of mean((x w^T)^2) with respect to w, in terms of the largest value.
double gradient_error(vkflux::Device& device) {
  using namespace vkflux;
  constexpr int64_t kRows = 33, kIn = 24, kOut = 7;
  const Tensor x = op::normal(device, {kRows, kIn}, 1, 0), w = op::normal(device, {kOut, kIn}, 1, 1);
  Tape tape;
  tape.watch(w);
  Tensor y, loss;
  {
    const auto scope = tape.record();
    y = op::linear(x, w);
    loss = op::mean_all(op::mul(y, y));
  }
  const std::vector<float> got = tape.backward(loss).of(w).to_host(), xs = x.to_host(), ys = y.to_host();
  double worst = 0, largest = 0;
  for (size_t o = 0; o < kOut; ++o) {
    for (size_t i = 0; i < kIn; ++i) {
      double want = 0;
      for (size_t r = 0; r < kRows; ++r) want += 2.0 * ys[r * kOut + o] * xs[r * kIn + i] / (kRows * kOut);
      worst = std::max(worst, std::abs(got[o * kIn + i] - want));
      largest = std::max(largest, std::abs(want));
    }
  }
  return worst / largest;
}

}  // namespace

int main() {
  try {
    Host host;
    host.work();
    double error = 0;
    {
      const auto device = vkflux::Device::adopt(host.lend());
      std::printf("vkflux on it: %s\n", device->caps().device_name.c_str());
      error = gradient_error(*device);
    }
    host.work();  // the device is still the host's
    std::printf("gradient through a linear layer: relative error %.1e\n", error);
    return error < 1e-4 ? 0 : 1;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
}
