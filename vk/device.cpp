#include "vk/device.h"

#include <dlfcn.h>
#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cstring>

#include "vk/environment.h"
#include "vk/error.h"
#include "vk/features.h"

namespace vkflux {
namespace {

constexpr const char* kValidationLayer = "VK_LAYER_KHRONOS_validation";

PFN_vkGetInstanceProcAddr system_loader() {
  static void* library = dlopen("libvulkan.so.1", RTLD_NOW | RTLD_LOCAL);
  auto get = library ? reinterpret_cast<PFN_vkGetInstanceProcAddr>(dlsym(library, "vkGetInstanceProcAddr"))
                     : nullptr;
  if (!get) {
    throw Error(ErrorCode::no_device,
                "the Vulkan loader libvulkan.so.1 was not found; install libvulkan1 and a driver "
                "(mesa-vulkan-drivers has one that runs on the CPU)");
  }
  return get;
}

bool has_layer(PFN_vkGetInstanceProcAddr get, const char* layer) {
  const auto list = reinterpret_cast<PFN_vkEnumerateInstanceLayerProperties>(
      get(nullptr, "vkEnumerateInstanceLayerProperties"));
  uint32_t n = 0;
  list(&n, nullptr);
  std::vector<VkLayerProperties> layers(n);
  list(&n, layers.data());
  return std::any_of(layers.begin(), layers.end(),
                     [&](const auto& l) { return std::strcmp(l.layerName, layer) == 0; });
}

std::string lower(std::string s) {
  std::transform(s.begin(), s.end(), s.begin(), [](unsigned char c) { return std::tolower(c); });
  return s;
}

int rank(const Caps& c) {
  switch (c.type) {
    case VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU:
      return 0;
    case VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU:
      return 1;
    case VK_PHYSICAL_DEVICE_TYPE_VIRTUAL_GPU:
      return 2;
    case VK_PHYSICAL_DEVICE_TYPE_CPU:
      return 3;
    default:
      return 4;
  }
}

// Whether `part` stands in `name` from the beginning of a word on.
bool begins_a_word(const std::string& name, const std::string& part) {
  for (size_t at = name.find(part); at != std::string::npos; at = name.find(part, at + 1)) {
    if (at == 0 || !std::isalnum(static_cast<unsigned char>(name[at - 1]))) return true;
  }
  return false;
}

size_t choose(const std::vector<Caps>& found, std::string select) {
  if (select.empty()) select = environment("VKFLUX_DEVICE");
  std::string list;
  for (size_t i = 0; i < found.size(); ++i) list += fmt::format("\n  {}: {}", i, found[i].device_name);
  if (found.empty())
    throw Error(ErrorCode::no_device, "no Vulkan device was found; install a driver (mesa-vulkan-drivers)");
  if (select.empty()) {
    return static_cast<size_t>(
        std::min_element(found.begin(), found.end(),
                         [](const auto& a, const auto& b) { return rank(a) < rank(b); }) -
        found.begin());
  }
  size_t number = 0;
  const char* end = select.data() + select.size();
  const auto [at, error] = std::from_chars(select.data(), end, number);
  const bool is_number = at == end;
  if (is_number && error == std::errc() && number < found.size()) return number;
  for (size_t i = 0; i < found.size() && !is_number; ++i) {
    if (begins_a_word(lower(found[i].device_name), lower(select))) return i;
  }
  throw Error(ErrorCode::no_device, fmt::format("no Vulkan device matches '{}'; there are:{}", select, list));
}

uint32_t compute_family(const InstanceFunctions& vk, VkPhysicalDevice physical) {
  uint32_t n = 0;
  vk.vkGetPhysicalDeviceQueueFamilyProperties(physical, &n, nullptr);
  std::vector<VkQueueFamilyProperties> families(n);
  vk.vkGetPhysicalDeviceQueueFamilyProperties(physical, &n, families.data());
  for (uint32_t i = 0; i < n; ++i) {
    if (families[i].queueFlags & VK_QUEUE_COMPUTE_BIT) return i;
  }
  throw Error(ErrorCode::no_device, "the device has no compute queue");
}

// A family that copies and does nothing else: GPUs have engines for it that work beside the others.
std::optional<uint32_t> find_transfer_family(const InstanceFunctions& vk, VkPhysicalDevice physical) {
  uint32_t n = 0;
  vk.vkGetPhysicalDeviceQueueFamilyProperties(physical, &n, nullptr);
  std::vector<VkQueueFamilyProperties> families(n);
  vk.vkGetPhysicalDeviceQueueFamilyProperties(physical, &n, families.data());
  for (uint32_t i = 0; i < n; ++i) {
    constexpr VkQueueFlags kOther = VK_QUEUE_GRAPHICS_BIT | VK_QUEUE_COMPUTE_BIT;
    if ((families[i].queueFlags & VK_QUEUE_TRANSFER_BIT) && !(families[i].queueFlags & kOther)) return i;
  }
  return std::nullopt;
}

}  // namespace

struct Device::Instance {
  PFN_vkGetInstanceProcAddr get = nullptr;
  VkInstance handle = VK_NULL_HANDLE;
  InstanceFunctions vk;
  bool owned = true, validating = false;
  std::mutex queue;  // submissions come from the stream's thread and from an uploader's

  ~Instance() {
    if (owned && handle) vk.vkDestroyInstance(handle, nullptr);
  }

  static std::shared_ptr<Instance> create(bool validate) {
    auto in = std::make_shared<Instance>();
    in->get = system_loader();
    in->validating = validate && has_layer(in->get, kValidationLayer);
    if (validate && !in->validating)
      spdlog::warn("validation was asked for, but {} is not installed", kValidationLayer);
    VkApplicationInfo app{};
    app.sType = VK_STRUCTURE_TYPE_APPLICATION_INFO;
    app.pApplicationName = "vkflux";
    app.apiVersion = VK_API_VERSION_1_2;
    const VkValidationFeatureEnableEXT sync = VK_VALIDATION_FEATURE_ENABLE_SYNCHRONIZATION_VALIDATION_EXT;
    VkValidationFeaturesEXT features{};
    features.sType = VK_STRUCTURE_TYPE_VALIDATION_FEATURES_EXT;
    features.enabledValidationFeatureCount = 1;
    features.pEnabledValidationFeatures = &sync;
    const char* extensions[] = {VK_EXT_DEBUG_UTILS_EXTENSION_NAME, VK_EXT_VALIDATION_FEATURES_EXTENSION_NAME};
    VkInstanceCreateInfo info{};
    info.sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO;
    info.pApplicationInfo = &app;
    if (in->validating) {
      info.pNext = &features;
      info.enabledLayerCount = 1;
      info.ppEnabledLayerNames = &kValidationLayer;
      info.enabledExtensionCount = 2;
      info.ppEnabledExtensionNames = extensions;
    }
    const auto make = reinterpret_cast<PFN_vkCreateInstance>(in->get(nullptr, "vkCreateInstance"));
    const VkResult result = make(&info, nullptr, &in->handle);
    if (result == VK_ERROR_INCOMPATIBLE_DRIVER)
      throw Error(ErrorCode::no_device, "no Vulkan driver is installed");
    check(result, "vkCreateInstance");
    in->vk = load_instance_functions(in->get, in->handle);
    return in;
  }

  std::vector<VkPhysicalDevice> physical() const {
    uint32_t n = 0;
    vk.vkEnumeratePhysicalDevices(handle, &n, nullptr);
    std::vector<VkPhysicalDevice> all(n);
    vk.vkEnumeratePhysicalDevices(handle, &n, all.data());
    return all;
  }
};

std::vector<Caps> Device::enumerate() {
  const auto instance = Instance::create(false);
  std::vector<Caps> out;
  for (VkPhysicalDevice p : instance->physical()) out.push_back(query_caps(instance->vk, p));
  return out;
}

VkBool32 Device::on_message(VkDebugUtilsMessageSeverityFlagBitsEXT, VkDebugUtilsMessageTypeFlagsEXT,
                            const VkDebugUtilsMessengerCallbackDataEXT* data, void* user) {
  ++static_cast<Device*>(user)->validation_messages_;
  spdlog::error("validation: {}", data->pMessage);
  return VK_FALSE;
}

std::unique_ptr<Device> Device::create(const DeviceOptions& options) {
  const std::string wish = environment("VKFLUX_VALIDATE");
  const bool validate = options.validate.value_or(!wish.empty() && wish[0] != '0');
  std::unique_ptr<Device> d(new Device);
  d->instance_ = Instance::create(validate);
  const InstanceFunctions& vk = d->instance_->vk;
  if (d->instance_->validating && vk.vkCreateDebugUtilsMessengerEXT) {
    VkDebugUtilsMessengerCreateInfoEXT info{};
    info.sType = VK_STRUCTURE_TYPE_DEBUG_UTILS_MESSENGER_CREATE_INFO_EXT;
    info.messageSeverity =
        VK_DEBUG_UTILS_MESSAGE_SEVERITY_ERROR_BIT_EXT | VK_DEBUG_UTILS_MESSAGE_SEVERITY_WARNING_BIT_EXT;
    info.messageType = VK_DEBUG_UTILS_MESSAGE_TYPE_VALIDATION_BIT_EXT;
    info.pfnUserCallback = &Device::on_message;
    info.pUserData = d.get();
    check(vk.vkCreateDebugUtilsMessengerEXT(d->instance_->handle, &info, nullptr, &d->messenger_),
          "debug messenger");
  }
  const auto physical = d->instance_->physical();
  std::vector<Caps> found;
  for (VkPhysicalDevice p : physical) found.push_back(query_caps(vk, p));
  const size_t index = choose(found, options.select);
  d->caps_ = found[index];
  if (d->caps_.api_version < VK_API_VERSION_1_2) {
    throw Error(
        ErrorCode::unsupported,
        fmt::format("{} offers Vulkan {}.{}; 1.2 is needed", d->caps_.device_name,
                    VK_API_VERSION_MAJOR(d->caps_.api_version), VK_API_VERSION_MINOR(d->caps_.api_version)));
  }

  d->capture_statistics_ = options.capture_statistics && d->caps_.pipeline_statistics;
  const DeviceFeatures features(vk, physical[index], d->caps_, d->capture_statistics_);
  d->queue_family_ = compute_family(vk, physical[index]);
  const std::optional<uint32_t> transfer = find_transfer_family(vk, physical[index]);
  const float priority = 1;
  VkDeviceQueueCreateInfo queue{};
  queue.sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO;
  queue.queueFamilyIndex = d->queue_family_;
  queue.queueCount = 1;
  queue.pQueuePriorities = &priority;
  std::vector<VkDeviceQueueCreateInfo> queues{queue};
  if (transfer) {
    queue.queueFamilyIndex = d->transfer_family_ = *transfer;
    queues.push_back(queue);
  }
  VkDeviceCreateInfo info{};
  info.sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO;
  info.pNext = features.chain();
  info.queueCreateInfoCount = static_cast<uint32_t>(queues.size());
  info.pQueueCreateInfos = queues.data();
  info.enabledExtensionCount = static_cast<uint32_t>(features.extensions().size());
  info.ppEnabledExtensionNames = features.extensions().data();
  d->physical_ = physical[index];
  check(vk.vkCreateDevice(physical[index], &info, nullptr, &d->device_), "vkCreateDevice");
  VkPhysicalDeviceMemoryProperties2 memory{};
  memory.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_PROPERTIES_2;
  vk.vkGetPhysicalDeviceMemoryProperties2(physical[index], &memory);
  d->memory_ = memory.memoryProperties;
  d->vk_ = load_device_functions(vk.vkGetDeviceProcAddr, d->device_);
  d->vk_.vkGetDeviceQueue(d->device_, d->queue_family_, 0, &d->queue_);
  if (transfer) d->vk_.vkGetDeviceQueue(d->device_, *transfer, 0, &d->transfer_queue_);
  d->start(options.memory_budget);
  return d;
}

std::unique_ptr<Device> Device::adopt(const HostDevice& host, uint64_t memory_budget) {
  std::unique_ptr<Device> d(new Device);
  d->owned_ = false;
  d->instance_ = std::make_shared<Instance>();
  d->instance_->owned = false;
  d->instance_->get = host.get_instance_proc_addr;
  d->instance_->handle = host.instance;
  d->instance_->vk = load_instance_functions(host.get_instance_proc_addr, host.instance);
  const InstanceFunctions& vk = d->instance_->vk;
  d->caps_ = query_caps(vk, host.physical);
  std::string missing;
  if (!host.timeline_semaphore) missing += "\n  feature timelineSemaphore";
  if (d->caps_.api_version < VK_API_VERSION_1_2) missing += "\n  Vulkan 1.2";
  if (!missing.empty()) throw Error(ErrorCode::unsupported, "the host's device lacks:" + missing);
  const auto enabled = [&](const char* e) {
    return std::find(host.extensions.begin(), host.extensions.end(), e) != host.extensions.end();
  };
  d->caps_.push_descriptor = enabled(VK_KHR_PUSH_DESCRIPTOR_EXTENSION_NAME);
  d->caps_.fp16 = host.float16 && host.storage_16bit;
  d->caps_.int8 = host.int8 && host.storage_8bit;
  d->caps_.int64 = host.int64;
  d->caps_.coopmat = d->caps_.bf16 = false;  // hosts don't state these features
  d->caps_.full_subgroups = false;
  d->caps_.min_subgroup_size = d->caps_.max_subgroup_size = 0;
  VkPhysicalDeviceMemoryProperties2 memory{};
  memory.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_PROPERTIES_2;
  vk.vkGetPhysicalDeviceMemoryProperties2(host.physical, &memory);
  d->memory_ = memory.memoryProperties;
  d->physical_ = host.physical;
  d->device_ = host.device;
  d->queue_ = host.queue;
  d->queue_family_ = host.queue_family;
  d->lock_ = host.lock;
  d->unlock_ = host.unlock;
  d->vk_ = load_device_functions(vk.vkGetDeviceProcAddr, host.device);
  d->start(memory_budget);
  return d;
}

void Device::start(uint64_t budget) {
  own_caps_ = caps_;
  class_ = caps_.device_class;
  pool_ = std::make_unique<Pool>(*this, budget);
  kernels_ = std::make_unique<KernelCache>(*this);
  stream_ = std::make_unique<Stream>(*this);
  saturated_ = std::make_unique<Tally>(*this);
}

void Device::set_limits(const DeviceLimits& limits) {
  const auto lower = [](uint64_t own, uint64_t limit) { return limit ? std::min(own, limit) : own; };
  caps_.max_storage_buffer_range = lower(own_caps_.max_storage_buffer_range, limits.binding);
  caps_.max_texel_elements = lower(own_caps_.max_texel_elements, limits.binding / 16);
  caps_.max_allocation = lower(own_caps_.max_allocation, limits.allocation);
  caps_.device_memory = limits.memory ? limits.memory : own_caps_.device_memory;
  memory_limit_ = limits.memory;
}

uint64_t Device::available_memory() const {
  if (memory_limit_ || !caps_.memory_budget) return caps_.device_memory;
  VkPhysicalDeviceMemoryBudgetPropertiesEXT budget{};
  budget.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_BUDGET_PROPERTIES_EXT;
  VkPhysicalDeviceMemoryProperties2 memory{};
  memory.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_PROPERTIES_2;
  memory.pNext = &budget;
  instance_->vk.vkGetPhysicalDeviceMemoryProperties2(physical_, &memory);
  uint64_t size = 0, most = caps_.device_memory;
  for (uint32_t i = 0; i < memory.memoryProperties.memoryHeapCount; ++i) {
    const VkMemoryHeap& heap = memory.memoryProperties.memoryHeaps[i];
    if (!(heap.flags & VK_MEMORY_HEAP_DEVICE_LOCAL_BIT) || heap.size <= size) continue;
    size = heap.size;
    most = budget.heapBudget[i];  // of this process, as it is given by the driver
  }
  return std::min(most, caps_.device_memory);
}

BufferPtr Device::constant(std::span<const std::byte> bytes) {
  constexpr uint64_t kMaxBytes = 4 << 20;  // of all tables together; then the cache starts anew
  std::string key(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (const auto it = constants_.find(key); it != constants_.end()) return it->second;
  if (constant_bytes_ + bytes.size() > kMaxBytes) {
    constants_.clear();
    constant_bytes_ = 0;
  }
  BufferPtr buffer = pool_->allocate(bytes.size(), MemoryClass::weights);
  if (!bytes.empty()) stream_->upload({buffer, 0, bytes.size()}, bytes);
  constant_bytes_ += bytes.size();
  constants_.emplace(std::move(key), buffer);
  return buffer;
}

Device::~Device() {
  stream_.reset();
  saturated_.reset();
  kernels_.reset();
  constants_.clear();
  pool_.reset();
  if (owned_ && vk_.vkDestroyDevice) vk_.vkDestroyDevice(device_, nullptr);
  if (messenger_) instance_->vk.vkDestroyDebugUtilsMessengerEXT(instance_->handle, messenger_, nullptr);
}

std::shared_ptr<void> Device::lock_queue() {
  instance_->queue.lock();
  if (lock_) lock_();
  return {static_cast<void*>(this), [instance = instance_.get(), unlock = unlock_](void*) {
            if (unlock) unlock();
            instance->queue.unlock();
          }};
}

}  // namespace vkflux
