// Devices that a host lends, and what drivers say of themselves.
#include <dlfcn.h>
#include <gtest/gtest.h>

#include <chrono>
#include <future>
#include <string>
#include <thread>

#include "autograd/ops.h"
#include "autograd/run.h"
#include "tests/vk/chain.h"
#include "vk/device.h"
#include "vk/error.h"
#include "vk/subgroup_request.h"

namespace vkflux::test {
namespace {

// Drivers that can make all subgroups full, but of no other size than their own, as NVK on some chips.
PFN_vkGetPhysicalDeviceProperties2 driver_properties = nullptr;
VKAPI_ATTR void VKAPI_CALL without_required_sizes(VkPhysicalDevice physical, VkPhysicalDeviceProperties2* p) {
  driver_properties(physical, p);
  for (auto* x = static_cast<VkBaseOutStructure*>(p->pNext); x; x = x->pNext) {
    if (x->sType == VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_PROPERTIES)
      reinterpret_cast<VkPhysicalDeviceSubgroupSizeControlProperties*>(x)->requiredSubgroupSizeStages = 0;
  }
}
PFN_vkGetPhysicalDeviceFeatures2 driver_features = nullptr;
VKAPI_ATTR void VKAPI_CALL without_full_subgroups(VkPhysicalDevice physical, VkPhysicalDeviceFeatures2* f) {
  driver_features(physical, f);
  for (auto* x = static_cast<VkBaseOutStructure*>(f->pNext); x; x = x->pNext) {
    if (x->sType == VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_FEATURES)
      reinterpret_cast<VkPhysicalDeviceSubgroupSizeControlFeatures*>(x)->computeFullSubgroups = VK_FALSE;
  }
}

// A host application's own instance and device, as adopt() sees them.
class Host {
 public:
  explicit Host(bool push_descriptor) {
    library_ = dlopen("libvulkan.so.1", RTLD_NOW | RTLD_LOCAL);
    get_ = reinterpret_cast<PFN_vkGetInstanceProcAddr>(dlsym(library_, "vkGetInstanceProcAddr"));
    VkApplicationInfo app{};
    app.sType = VK_STRUCTURE_TYPE_APPLICATION_INFO;
    app.apiVersion = VK_API_VERSION_1_2;
    VkInstanceCreateInfo info{};
    info.sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO;
    info.pApplicationInfo = &app;
    const auto create = reinterpret_cast<PFN_vkCreateInstance>(get_(nullptr, "vkCreateInstance"));
    check(create(&info, nullptr, &instance_), "vkCreateInstance");
    vk_ = load_instance_functions(get_, instance_);
    uint32_t n = 1;
    vk_.vkEnumeratePhysicalDevices(instance_, &n, &physical_);
    std::vector<const char*> extensions;
    if (push_descriptor && query_caps(vk_, physical_).push_descriptor)
      extensions.push_back(VK_KHR_PUSH_DESCRIPTOR_EXTENSION_NAME);
    for (const char* e : extensions) extensions_.emplace_back(e);
    VkPhysicalDeviceVulkan12Features features{};
    features.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES;
    features.timelineSemaphore = VK_TRUE;
    const float priority = 1;
    VkDeviceQueueCreateInfo queue{};
    queue.sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO;
    queue.queueCount = 1;
    queue.pQueuePriorities = &priority;
    VkDeviceCreateInfo device{};
    device.sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO;
    device.pNext = &features;
    device.queueCreateInfoCount = 1;
    device.pQueueCreateInfos = &queue;
    device.enabledExtensionCount = static_cast<uint32_t>(extensions.size());
    device.ppEnabledExtensionNames = extensions.data();
    check(vk_.vkCreateDevice(physical_, &device, nullptr, &device_), "vkCreateDevice");
    functions_ = load_device_functions(vk_.vkGetDeviceProcAddr, device_);
    functions_.vkGetDeviceQueue(device_, 0, 0, &queue_);
  }
  ~Host() {
    functions_.vkDestroySemaphore(device_, gate_, nullptr);
    functions_.vkDestroyDevice(device_, nullptr);
    vk_.vkDestroyInstance(instance_, nullptr);
    dlclose(library_);
  }
  HostDevice describe() {
    HostDevice h;
    h.get_instance_proc_addr = get_;
    h.instance = instance_;
    h.physical = physical_;
    h.device = device_;
    h.queue = queue_;
    h.extensions = extensions_;
    h.timeline_semaphore = true;
    return h;
  }
  const InstanceFunctions& instance_functions() const { return vk_; }
  VkPhysicalDevice physical() const { return physical_; }
  bool works() { return own<PFN_vkQueueWaitIdle>("vkQueueWaitIdle")(queue_) == VK_SUCCESS; }

  /// Submits work that waits until release().
  void occupy() {
    VkSemaphoreTypeCreateInfo type{};
    type.sType = VK_STRUCTURE_TYPE_SEMAPHORE_TYPE_CREATE_INFO;
    type.semaphoreType = VK_SEMAPHORE_TYPE_TIMELINE;
    VkSemaphoreCreateInfo info{};
    info.sType = VK_STRUCTURE_TYPE_SEMAPHORE_CREATE_INFO;
    info.pNext = &type;
    check(functions_.vkCreateSemaphore(device_, &info, nullptr, &gate_), "vkCreateSemaphore");
    const uint64_t open = 1, done = 2;
    VkTimelineSemaphoreSubmitInfo values{};
    values.sType = VK_STRUCTURE_TYPE_TIMELINE_SEMAPHORE_SUBMIT_INFO;
    values.waitSemaphoreValueCount = values.signalSemaphoreValueCount = 1;
    values.pWaitSemaphoreValues = &open;
    values.pSignalSemaphoreValues = &done;
    const VkPipelineStageFlags stage = VK_PIPELINE_STAGE_ALL_COMMANDS_BIT;
    VkSubmitInfo submit{};
    submit.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO;
    submit.pNext = &values;
    submit.waitSemaphoreCount = submit.signalSemaphoreCount = 1;
    submit.pWaitSemaphores = submit.pSignalSemaphores = &gate_;
    submit.pWaitDstStageMask = &stage;
    check(functions_.vkQueueSubmit(queue_, 1, &submit, VK_NULL_HANDLE), "vkQueueSubmit");
  }
  bool occupied() {
    uint64_t value = 0;
    check(functions_.vkGetSemaphoreCounterValue(device_, gate_, &value), "vkGetSemaphoreCounterValue");
    return value == 0;
  }
  void release() {
    VkSemaphoreSignalInfo info{};
    info.sType = VK_STRUCTURE_TYPE_SEMAPHORE_SIGNAL_INFO;
    info.semaphore = gate_;
    info.value = 1;
    check(own<PFN_vkSignalSemaphore>("vkSignalSemaphore")(device_, &info), "vkSignalSemaphore");
  }

 private:
  template <class F>
  F own(const char* name) {
    return reinterpret_cast<F>(vk_.vkGetDeviceProcAddr(device_, name));
  }

  void* library_ = nullptr;
  PFN_vkGetInstanceProcAddr get_ = nullptr;
  VkInstance instance_ = VK_NULL_HANDLE;
  InstanceFunctions vk_;
  VkPhysicalDevice physical_ = VK_NULL_HANDLE;
  std::vector<std::string> extensions_;
  VkDevice device_ = VK_NULL_HANDLE;
  DeviceFunctions functions_;
  VkQueue queue_ = VK_NULL_HANDLE;
  VkSemaphore gate_ = VK_NULL_HANDLE;
};

TEST(SubgroupTest, FullOnesDontNeedARequiredSize) {
  Host host(false);
  InstanceFunctions vk = host.instance_functions();
  const Caps whole = query_caps(vk, host.physical());
  driver_properties = vk.vkGetPhysicalDeviceProperties2;
  vk.vkGetPhysicalDeviceProperties2 = &without_required_sizes;
  const Caps fixed = query_caps(vk, host.physical());
  EXPECT_EQ(fixed.full_subgroups, whole.full_subgroups);
  EXPECT_EQ(fixed.coopmat, whole.coopmat);
  EXPECT_EQ(fixed.min_subgroup_size, 0u);
  driver_features = vk.vkGetPhysicalDeviceFeatures2;
  vk.vkGetPhysicalDeviceFeatures2 = &without_full_subgroups;
  const Caps none = query_caps(vk, host.physical());
  EXPECT_FALSE(none.full_subgroups || none.coopmat || none.bf16);

  Caps c;
  c.full_subgroups = true;
  EXPECT_EQ(subgroup_request(c, 0).flags, 0u) << "nobody asked";
  EXPECT_EQ(subgroup_request(c, 32).flags,
            uint32_t{VK_PIPELINE_SHADER_STAGE_CREATE_REQUIRE_FULL_SUBGROUPS_BIT});
  EXPECT_EQ(subgroup_request(c, 32).size, 0u) << "the driver takes no size";
  c.min_subgroup_size = 8, c.max_subgroup_size = 64;
  EXPECT_EQ(subgroup_request(c, 32).size, 32u);
  EXPECT_EQ(subgroup_request(Caps{}, 32).flags, 0u);
}

TEST(AdoptTest, RunsOnAHostsDeviceAndLeavesItAlive) {
  for (bool push : {true, false}) {
    Host host(push);
    int locked = 0, unlocked = 0;
    HostDevice h = host.describe();
    h.lock = [&] { ++locked; };
    h.unlock = [&] { ++unlocked; };
    {
      const auto d = Device::adopt(h);
      check_chain(*d);
      // More dispatches than one descriptor pool holds.
      const Tensor x = Tensor::full(*d, Shape{64}, 0);
      for (int i = 0; i < 1500; ++i) affine(*d, x, x, 1, 1);
      EXPECT_EQ(x.to_host()[5], 1500);
      EXPECT_EQ(d->caps().push_descriptor, !h.extensions.empty());
      EXPECT_FALSE(d->caps().fp16);
    }
    EXPECT_GT(locked, 0);
    EXPECT_EQ(locked, unlocked);
    EXPECT_TRUE(host.works());
  }
}

// Nothing in the table of functions waits for a device or a queue, which may be a host's.
template <class Functions>
concept WaitsForDevice = requires(Functions f) {
  f.vkDeviceWaitIdle;
};
template <class Functions>
concept WaitsForQueue = requires(Functions f) {
  f.vkQueueWaitIdle;
};
static_assert(!WaitsForDevice<DeviceFunctions> && !WaitsForQueue<DeviceFunctions>);

// The host's work, behind ours on the same queue, ends when the host says so: whoever waited for the queue or
// the device would wait for that. (Reading timestamps waits for the device in some drivers, so none are
// read.)
TEST(AdoptTest, WaitsForItsOwnWorkAlone) {
  Host host(true);
  auto d = Device::adopt(host.describe());
  check_chain(*d);
  std::promise<void> destroyed;
  std::thread rescue([&, over = destroyed.get_future()] {
    if (over.wait_for(std::chrono::seconds(20)) == std::future_status::timeout) host.release();
  });
  {
    const Tensor x = Tensor::full(*d, Shape{1 << 20}, 1);
    affine(*d, x, x, 1, 1);
    d->stream().submit();
    host.occupy();
  }
  d.reset();
  destroyed.set_value();
  rescue.join();
  EXPECT_TRUE(host.occupied()) << "the host's work was waited for";
  if (host.occupied()) host.release();
  EXPECT_TRUE(host.works());
}

// A host may take its device back while it holds its queue's lock, with work open and in flight.
TEST(AdoptTest, GoesWithoutTheQueuesLock) {
  Host host(true);
  bool forbidden = false;
  int taken_in_vain = 0;
  HostDevice h = host.describe();
  h.lock = [&] { taken_in_vain += forbidden; };
  h.unlock = [] {};
  auto d = Device::adopt(h);
  {
    const Tensor x = Tensor::full(*d, Shape{1 << 16}, 1);
    affine(*d, x, x, 1, 1);
    d->stream().submit();
    affine(*d, x, x, 1, 1);
  }
  forbidden = true;
  d.reset();
  EXPECT_EQ(taken_in_vain, 0);
  EXPECT_TRUE(host.works());
}

TEST(AdoptTest, WhatIsMissingIsNamed) {
  Host host(false);
  HostDevice h = host.describe();
  h.timeline_semaphore = false;
  try {
    Device::adopt(h);
    FAIL() << "a device without timeline semaphores was adopted";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::unsupported);
    EXPECT_NE(std::string(e.what()).find("timelineSemaphore"), std::string::npos);
  }
}

}  // namespace
}  // namespace vkflux::test
