// A Vulkan device: our own, or one adopted from a host. Owns the memory pool, the kernels and one in-order
// stream.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "vk/caps.h"
#include "vk/functions.h"
#include "vk/kernel.h"
#include "vk/memory.h"
#include "vk/profiler.h"
#include "vk/stream.h"
#include "vk/tally.h"

namespace vkflux {

struct DeviceOptions {
  /// Index in Device::enumerate(), or part of a device's name; empty: $VKFLUX_DEVICE, else the first discrete
  /// GPU, then integrated, then CPU.
  std::string select;
  /// Core and synchronization validation; messages are counted (Device::validation_messages). Default:
  /// $VKFLUX_VALIDATE.
  std::optional<bool> validate;
  uint64_t memory_budget = 0;  // bytes, 0 = none
  /// Kernels keep what the driver's compiler says about them (Kernel::statistics), where it says anything.
  bool capture_statistics = false;
};

/// Less than a device has, to find out what a smaller one would do; 0: what it has.
struct DeviceLimits {
  uint64_t binding = 0;     // bytes of one binding
  uint64_t allocation = 0;  // bytes of one allocation
  uint64_t memory = 0;      // bytes of device memory; may also be more than the driver tells
};

/// What a host that lends its device states: enabled features can't be queried.
struct HostDevice {
  PFN_vkGetInstanceProcAddr get_instance_proc_addr = nullptr;
  VkInstance instance = VK_NULL_HANDLE;
  VkPhysicalDevice physical = VK_NULL_HANDLE;
  VkDevice device = VK_NULL_HANDLE;
  VkQueue queue = VK_NULL_HANDLE;
  uint32_t queue_family = 0;
  std::vector<std::string> extensions;  // enabled on the device
  bool timeline_semaphore = false;      // enabled features
  bool storage_8bit = false, storage_16bit = false, float16 = false, int8 = false;
  bool int64 = false;
  std::function<void()> lock, unlock;  // around queue submissions, when the queue is shared between threads
};

class Device {
 public:
  /// Error no_device when nothing fits; the message lists what was found.
  static std::unique_ptr<Device> create(const DeviceOptions& options = {});
  /// Uses the host's device without owning it. Error unsupported lists everything that is missing.
  static std::unique_ptr<Device> adopt(const HostDevice& host, uint64_t memory_budget = 0);
  static std::vector<Caps> enumerate();
  ~Device();
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  const Caps& caps() const { return caps_; }
  Pool& pool() { return *pool_; }
  KernelCache& kernels() { return *kernels_; }
  Stream& stream() { return *stream_; }
  Profiler& profiler() { return profiler_; }

  /// From now on; what was made before stays. Several calls don't add up.
  void set_limits(const DeviceLimits& limits);
  /// Bytes of the largest device-local heap that this process may use now, what it has included: by the
  /// driver's account of all programs where there is one (VK_EXT_memory_budget), else the heap's size.
  uint64_t available_memory() const;

  /// Nothing runs, memory is only counted: see Rehearsal.
  bool rehearsing() const { return rehearsing_; }

  /// Counts finite values that kernels rounded to f16's largest number because they are beyond it.
  Tally& saturated() { return *saturated_; }

  /// These bytes on the device, the same buffer for everybody who asks for the same bytes: for small tables
  /// that are computed on the host. Read only.
  BufferPtr constant(std::span<const std::byte> bytes);

  /// The class whose kernels are used; tests set it to run another class's structures on this device.
  DeviceClass device_class() const { return class_; }
  void set_device_class(DeviceClass c) { class_ = c; }

  /// Errors and warnings that the validation layer has reported so far; always 0 when it is off.
  uint64_t validation_messages() const { return validation_messages_; }
  bool validating() const { return messenger_ != VK_NULL_HANDLE; }
  bool captures_statistics() const { return capture_statistics_; }

  // for vk/
  VkDevice handle() const { return device_; }
  VkQueue queue() const { return queue_; }
  uint32_t queue_family() const { return queue_family_; }
  /// A queue that only transfers, beside the one that computes; null: there is none.
  VkQueue transfer_queue() const { return transfer_queue_; }
  uint32_t transfer_family() const { return transfer_family_; }
  const DeviceFunctions& vk() const { return vk_; }
  const VkPhysicalDeviceMemoryProperties& memory_properties() const { return memory_; }
  std::shared_ptr<void> lock_queue();

 private:
  friend class Rehearsal;
  Device() = default;
  void start(uint64_t budget);
  static VkBool32 VKAPI_PTR on_message(VkDebugUtilsMessageSeverityFlagBitsEXT,
                                       VkDebugUtilsMessageTypeFlagsEXT,
                                       const VkDebugUtilsMessengerCallbackDataEXT*, void*);

  struct Instance;
  std::shared_ptr<Instance> instance_;
  VkDebugUtilsMessengerEXT messenger_ = VK_NULL_HANDLE;
  uint64_t validation_messages_ = 0;
  bool owned_ = true, capture_statistics_ = false, rehearsing_ = false;
  Caps caps_, own_caps_;  // with limits, and the device's
  VkPhysicalDevice physical_ = VK_NULL_HANDLE;
  uint64_t memory_limit_ = 0;
  DeviceClass class_ = DeviceClass::other;
  VkPhysicalDeviceMemoryProperties memory_{};
  VkDevice device_ = VK_NULL_HANDLE;
  VkQueue queue_ = VK_NULL_HANDLE;
  VkQueue transfer_queue_ = VK_NULL_HANDLE;
  uint32_t queue_family_ = 0, transfer_family_ = 0;
  std::function<void()> lock_, unlock_;
  DeviceFunctions vk_;
  Profiler profiler_;
  std::unique_ptr<Pool> pool_;
  std::map<std::string, BufferPtr> constants_;  // by their bytes
  uint64_t constant_bytes_ = 0;
  std::unique_ptr<KernelCache> kernels_;
  std::unique_ptr<Stream> stream_;
  std::unique_ptr<Tally> saturated_;
};

}  // namespace vkflux
