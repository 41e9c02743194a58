// Kernels: a SPIR-V module with its specialisation constants, made into a pipeline on first use.
//
// The shader is the only declaration: bindings (storage or texel buffer, read or written), push-constant size
// and the number of specialisation constants are reflected from the SPIR-V.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "vk/functions.h"

namespace vkflux {

class Device;

struct KernelBinding {
  enum class Type { storage, texel };
  uint32_t binding = 0;
  Type type = Type::storage;
  bool read = true, written = false;
  VkFormat format = VK_FORMAT_UNDEFINED;  // of a texel binding: by its declared component type
};

struct KernelInterface {
  std::vector<KernelBinding> bindings;  // sorted by binding number, which counts from 0 without gaps
  uint32_t push_bytes = 0;
};

/// What a driver's compiler says about one program of a pipeline, under the driver's own names
/// ("VGPRs", "Spills to memory").
struct KernelStatistics {
  uint32_t subgroup_size = 0;
  std::vector<std::pair<std::string, double>> values;
};

struct Kernel {
  std::string name;  // "matmul:simd"
  std::vector<uint32_t> spec;
  std::vector<KernelStatistics> statistics;  // empty unless Device::captures_statistics()
  KernelInterface interface;
  VkDescriptorSetLayout set_layout = VK_NULL_HANDLE;
  VkPipelineLayout layout = VK_NULL_HANDLE;
  VkPipeline pipeline = VK_NULL_HANDLE;
};

/// Reflects a module; Error internal when it breaks the conventions above. Texel buffers: samplerBuffer reads
/// R32G32B32A32_SFLOAT, usamplerBuffer R32G32B32A32_UINT, isamplerBuffer R32G32B32A32_SINT.
KernelInterface reflect(std::string_view name, const uint32_t* words, size_t count);

class KernelCache {
 public:
  explicit KernelCache(Device& device);
  ~KernelCache();

  /// spec: the values of constant_id 0, 1, ...; Error unsupported when the build has no such variant or the
  /// device lacks what it needs.
  /// subgroup_size: the size that the kernel is written for, every subgroup full; 0: the device's choice.
  const Kernel& get(std::string_view shader, std::string_view variant, const std::vector<uint32_t>& spec,
                    uint32_t subgroup_size = 0);
  /// Compiled in, and the device has what it needs.
  bool available(std::string_view shader, std::string_view variant) const;
  size_t size() const { return kernels_.size(); }
  /// Every kernel made so far, by name.
  std::vector<const Kernel*> list() const;

 private:
  void load_cache();
  void save_cache() noexcept;

  Device& device_;
  VkPipelineCache cache_ = VK_NULL_HANDLE;
  std::string cache_path_;
  size_t loaded_bytes_ = 0;
  std::map<std::tuple<std::string, std::string, std::vector<uint32_t>, uint32_t>, Kernel> kernels_;
};

}  // namespace vkflux
