// Kernels: a SPIR-V module with its specialisation constants, made into a pipeline on first use.
//
// The shader is the only declaration: bindings (storage or texel buffer, read or written), push-constant size
// and the ids of specialisation constants are reflected from the SPIR-V. The constants' names, which
// compilers strip, are read from the source (cmake/Shaders.cmake) and become fields in C++ (autograd/args.h).
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
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
  uint32_t constants = 0;      // one more than the highest constant_id that the module uses
  bool counts_groups = false;  // reads the number of workgroups: a dispatch can't be made in parts
};

/// What a driver's compiler says about one program of a pipeline, under the driver's own names
/// ("VGPRs", "Spills to memory").
struct KernelStatistics {
  uint32_t subgroup_size = 0;
  std::vector<std::pair<std::string, double>> values;
};

/// The values of constant_id 0, 1, ...; kept inline, since one is made for every dispatch.
class SpecValues {
 public:
  static constexpr size_t kMax = 16;
  SpecValues() = default;
  template <size_t n>
  explicit SpecValues(const std::array<uint32_t, n>& values) : size_(n) {
    static_assert(n <= kMax);
    std::copy(values.begin(), values.end(), values_.begin());
  }

  uint32_t size() const { return size_; }
  const uint32_t* data() const { return values_.data(); }
  std::string_view bytes() const { return {reinterpret_cast<const char*>(values_.data()), size_ * 4ul}; }

 private:
  std::array<uint32_t, kMax> values_{};
  uint32_t size_ = 0;
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

  /// subgroup_size: the size that the kernel is written for, every subgroup full; 0: the device's choice.
  /// Error unsupported when the build has no such variant or the device lacks what it needs.
  const Kernel& get(std::string_view shader, std::string_view variant, const SpecValues& spec,
                    uint32_t subgroup_size = 0);
  /// The same without making the pipeline.
  const KernelInterface& interface(std::string_view shader, std::string_view variant);
  /// Compiled in, and the device has what it needs.
  bool available(std::string_view shader, std::string_view variant) const;
  size_t size() const { return kernels_.size(); }
  /// Every kernel made so far, by name.
  std::vector<const Kernel*> list() const;
  /// Writes the driver's pipelines to disk when there are new ones since the last time. Long-running programs
  /// call it when they are warm, so that being killed doesn't cost the next start; the destructor does too.
  void save() noexcept;

 private:
  struct Key {
    std::string_view shader, variant;
    SpecValues spec;
    uint32_t subgroup_size;
    bool operator==(const Key& o) const {
      return shader == o.shader && variant == o.variant && spec.bytes() == o.spec.bytes() &&
             subgroup_size == o.subgroup_size;
    }
  };
  struct KeyHash {
    size_t operator()(const Key& k) const;
  };

  void load();
  Kernel make(const Key& key);

  Device& device_;
  VkPipelineCache cache_ = VK_NULL_HANDLE;
  std::string cache_path_;
  size_t saved_kernels_ = 0, saved_bytes_ = 0;
  // Keys point to the names of the module table, which lives as long as the program.
  std::unordered_map<Key, Kernel, KeyHash> kernels_;
  std::map<std::pair<std::string_view, std::string_view>, KernelInterface> interfaces_;
};

}  // namespace vkflux
