#include "vk/kernel.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <tuple>

#include "vk/device.h"
#include "vk/environment.h"
#include "vk/error.h"
#include "vk/spirv.h"
#include "vk/subgroup_request.h"

namespace vkflux {
namespace {

std::string cache_file(const Caps& caps) {
  const std::filesystem::path dir = cache_folder();
  if (dir.empty()) return {};
  std::string id;
  for (uint8_t b : caps.pipeline_cache_uuid) id += fmt::format("{:02x}", b);
  return dir / fmt::format("pipelines-{:04x}-{:04x}-{}.bin", caps.vendor_id, caps.device_id, id);
}

double number(const VkPipelineExecutableStatisticKHR& s) {
  switch (s.format) {
    case VK_PIPELINE_EXECUTABLE_STATISTIC_FORMAT_BOOL32_KHR:
      return s.value.b32;
    case VK_PIPELINE_EXECUTABLE_STATISTIC_FORMAT_INT64_KHR:
      return static_cast<double>(s.value.i64);
    case VK_PIPELINE_EXECUTABLE_STATISTIC_FORMAT_UINT64_KHR:
      return static_cast<double>(s.value.u64);
    default:
      return s.value.f64;
  }
}

std::vector<KernelStatistics> read_statistics(Device& device, VkPipeline pipeline) {
  const DeviceFunctions& vk = device.vk();
  VkPipelineInfoKHR which{};
  which.sType = VK_STRUCTURE_TYPE_PIPELINE_INFO_KHR;
  which.pipeline = pipeline;
  uint32_t n = 0;
  check(vk.vkGetPipelineExecutablePropertiesKHR(device.handle(), &which, &n, nullptr), "pipeline statistics");
  VkPipelineExecutablePropertiesKHR no_program{};
  no_program.sType = VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_PROPERTIES_KHR;
  std::vector<VkPipelineExecutablePropertiesKHR> programs(n, no_program);
  check(vk.vkGetPipelineExecutablePropertiesKHR(device.handle(), &which, &n, programs.data()),
        "pipeline statistics");
  std::vector<KernelStatistics> out;
  for (uint32_t i = 0; i < n; ++i) {
    VkPipelineExecutableInfoKHR program{};
    program.sType = VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_INFO_KHR;
    program.pipeline = pipeline;
    program.executableIndex = i;
    uint32_t count = 0;
    check(vk.vkGetPipelineExecutableStatisticsKHR(device.handle(), &program, &count, nullptr),
          "pipeline statistics");
    VkPipelineExecutableStatisticKHR none{};
    none.sType = VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_STATISTIC_KHR;
    std::vector<VkPipelineExecutableStatisticKHR> values(count, none);
    check(vk.vkGetPipelineExecutableStatisticsKHR(device.handle(), &program, &count, values.data()),
          "pipeline statistics");
    KernelStatistics s{programs[i].subgroupSize, {}};
    for (const auto& v : values) s.values.emplace_back(v.name, number(v));
    out.push_back(std::move(s));
  }
  return out;
}

/// Nothing where there is no regular file to read: what lies in a cache's place must not stop anybody.
std::vector<char> read_cache(const std::string& path) {
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file < 0) return {};
  struct stat info {};
  std::vector<char> data;
  if (fstat(file, &info) == 0 && S_ISREG(info.st_mode)) data.resize(static_cast<size_t>(info.st_size));
  size_t done = 0;
  while (done < data.size()) {
    const ssize_t n = read(file, data.data() + done, data.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    done += static_cast<size_t>(n);
  }
  close(file);
  data.resize(done);
  return data;
}

// Whole or not at all: a temporary file, synced, renamed.
bool write_synced(const std::string& path, std::string_view data) {
  const std::string temporary = fmt::format("{}.{}", path, getpid());
  const int file = open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (file < 0) return false;
  bool good = true;
  while (good && !data.empty()) {
    const ssize_t n = ::write(file, data.data(), data.size());
    good = n > 0;
    if (good) data.remove_prefix(static_cast<size_t>(n));
  }
  good = good && fsync(file) == 0;
  good = close(file) == 0 && good;
  good = good && std::rename(temporary.c_str(), path.c_str()) == 0;
  if (!good) unlink(temporary.c_str());
  return good;
}

}  // namespace

const SpirvModule* find_spirv(std::string_view shader, std::string_view variant) {
  for (const SpirvModule& m : spirv_modules()) {
    if (m.shader == shader && m.variant == variant) return &m;
  }
  return nullptr;
}

SubgroupRequest subgroup_request(const Caps& caps, uint32_t size) {
  if (size == 0 || !caps.full_subgroups) return {};
  return {VK_PIPELINE_SHADER_STAGE_CREATE_REQUIRE_FULL_SUBGROUPS_BIT, caps.min_subgroup_size ? size : 0};
}

size_t KernelCache::KeyHash::operator()(const Key& k) const {
  const std::hash<std::string_view> hash;
  return hash(k.shader) ^ hash(k.variant) * 3 ^ hash(k.spec.bytes()) * 5 ^ k.subgroup_size;
}

KernelCache::KernelCache(Device& device) : device_(device), cache_path_(cache_file(device.caps())) {
  load();
}

KernelCache::~KernelCache() {
  save();
  const DeviceFunctions& vk = device_.vk();
  for (auto& [key, k] : kernels_) {
    vk.vkDestroyPipeline(device_.handle(), k.pipeline, nullptr);
    vk.vkDestroyPipelineLayout(device_.handle(), k.layout, nullptr);
    vk.vkDestroyDescriptorSetLayout(device_.handle(), k.set_layout, nullptr);
  }
  vk.vkDestroyPipelineCache(device_.handle(), cache_, nullptr);
}

void KernelCache::load() {
  const DeviceFunctions& vk = device_.vk();
  // The driver checks the header itself and ignores what isn't its own.
  const std::vector<char> data = read_cache(cache_path_);
  VkPipelineCacheCreateInfo info{};
  info.sType = VK_STRUCTURE_TYPE_PIPELINE_CACHE_CREATE_INFO;
  info.initialDataSize = data.size();
  info.pInitialData = data.data();
  if (vk.vkCreatePipelineCache(device_.handle(), &info, nullptr, &cache_) != VK_SUCCESS) {
    info.initialDataSize = 0;
    check(vk.vkCreatePipelineCache(device_.handle(), &info, nullptr, &cache_), "vkCreatePipelineCache");
  }
  // What the driver took of the file. A file that isn't its own is replaced by the first new pipeline.
  size_t n = 0;
  if (vk.vkGetPipelineCacheData(device_.handle(), cache_, &n, nullptr) != VK_SUCCESS) return;
  std::vector<char> own(n);
  if (vk.vkGetPipelineCacheData(device_.handle(), cache_, &n, own.data()) != VK_SUCCESS) return;
  const size_t header = std::min(n, sizeof(VkPipelineCacheHeaderVersionOne));
  if (data.size() >= header &&
      std::equal(data.begin(), data.begin() + static_cast<ptrdiff_t>(header), own.begin()))
    saved_bytes_ = n;
}

// Losing the cache costs a second next time, so a failure here is no error.
void KernelCache::save() noexcept {
  if (saved_kernels_ == kernels_.size() || cache_path_.empty()) return;
  saved_kernels_ = kernels_.size();
  try {
    size_t n = 0;
    const DeviceFunctions& vk = device_.vk();
    if (vk.vkGetPipelineCacheData(device_.handle(), cache_, &n, nullptr) != VK_SUCCESS) return;
    if (n <= saved_bytes_) return;
    std::vector<char> data(n);
    if (vk.vkGetPipelineCacheData(device_.handle(), cache_, &n, data.data()) != VK_SUCCESS) return;
    std::filesystem::create_directories(std::filesystem::path(cache_path_).parent_path());
    if (write_synced(cache_path_, {data.data(), n})) saved_bytes_ = n;
  } catch (const std::exception&) {
    return;
  }
}

std::vector<const Kernel*> KernelCache::list() const {
  std::vector<const Kernel*> out;
  for (const auto& [key, kernel] : kernels_) out.push_back(&kernel);
  std::sort(out.begin(), out.end(), [](const Kernel* a, const Kernel* b) {
    return std::tie(a->name, a->spec) < std::tie(b->name, b->spec);
  });
  return out;
}

bool KernelCache::available(std::string_view shader, std::string_view variant) const {
  const SpirvModule* m = find_spirv(shader, variant);
  return m && device_.caps().has(m->requires_);
}

const Kernel& KernelCache::get(std::string_view shader, std::string_view variant, const SpecValues& spec,
                               uint32_t subgroup_size) {
  Key key{shader, variant, spec, subgroup_size};
  if (const auto it = kernels_.find(key); it != kernels_.end()) return it->second;
  Kernel kernel = make(key);
  const SpirvModule* m = find_spirv(shader, variant);
  key.shader = m->shader;
  key.variant = m->variant;
  return kernels_.emplace(key, std::move(kernel)).first->second;
}

const KernelInterface& KernelCache::interface(std::string_view shader, std::string_view variant) {
  const SpirvModule* m = find_spirv(shader, variant);
  if (!m || !device_.caps().has(m->requires_)) {
    throw Error(ErrorCode::unsupported, fmt::format("kernel {}:{} is not {}", shader, variant,
                                                    m ? "supported by this device" : "in this build"));
  }
  const auto [it, made] = interfaces_.try_emplace({m->shader, m->variant});
  if (made) it->second = reflect(fmt::format("{}:{}", shader, variant), m->words, m->count);
  return it->second;
}

Kernel KernelCache::make(const Key& key) {
  const auto& [shader, variant, spec, subgroup_size] = key;
  const SpirvModule* m = find_spirv(shader, variant);
  if (!m || !device_.caps().has(m->requires_)) {
    throw Error(ErrorCode::unsupported, fmt::format("kernel {}:{} is not {}", shader, variant,
                                                    m ? "supported by this device" : "in this build"));
  }
  const DeviceFunctions& vk = device_.vk();
  Kernel k;
  k.name = fmt::format("{}:{}", shader, variant);
  k.spec.assign(spec.data(), spec.data() + spec.size());
  k.interface = reflect(k.name, m->words, m->count);
  const std::string_view names = m->constants;
  const auto declared = names.empty() ? 0 : std::count(names.begin(), names.end(), ',') + 1;
  if (spec.size() != declared || k.interface.constants > declared) {
    throw Error(
        ErrorCode::internal,
        fmt::format("kernel {} has the specialisation constants [{}] and uses ids below {}; {} values "
                    "are given",
                    k.name, names, k.interface.constants, spec.size()));
  }

  std::vector<VkDescriptorSetLayoutBinding> bindings;
  for (const KernelBinding& b : k.interface.bindings) {
    const auto type = b.type == KernelBinding::Type::storage ? VK_DESCRIPTOR_TYPE_STORAGE_BUFFER
                                                             : VK_DESCRIPTOR_TYPE_UNIFORM_TEXEL_BUFFER;
    bindings.push_back({b.binding, type, 1, VK_SHADER_STAGE_COMPUTE_BIT, nullptr});
  }
  VkDescriptorSetLayoutCreateInfo set{};
  set.sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_LAYOUT_CREATE_INFO;
  set.flags = device_.caps().push_descriptor ? VK_DESCRIPTOR_SET_LAYOUT_CREATE_PUSH_DESCRIPTOR_BIT_KHR : 0;
  set.bindingCount = static_cast<uint32_t>(bindings.size());
  set.pBindings = bindings.data();
  check(vk.vkCreateDescriptorSetLayout(device_.handle(), &set, nullptr, &k.set_layout),
        "vkCreateDescriptorSetLayout");

  const VkPushConstantRange push{VK_SHADER_STAGE_COMPUTE_BIT, 0, k.interface.push_bytes};
  VkPipelineLayoutCreateInfo layout{};
  layout.sType = VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO;
  layout.setLayoutCount = 1;
  layout.pSetLayouts = &k.set_layout;
  layout.pushConstantRangeCount = push.size ? 1 : 0;
  layout.pPushConstantRanges = &push;
  check(vk.vkCreatePipelineLayout(device_.handle(), &layout, nullptr, &k.layout), "vkCreatePipelineLayout");

  VkShaderModuleCreateInfo code{};
  code.sType = VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO;
  code.codeSize = m->count * 4;
  code.pCode = m->words;
  VkShaderModule module = VK_NULL_HANDLE;
  check(vk.vkCreateShaderModule(device_.handle(), &code, nullptr, &module), "vkCreateShaderModule");

  std::vector<VkSpecializationMapEntry> entries;
  for (uint32_t i = 0; i < spec.size(); ++i) entries.push_back({i, 4 * i, 4});
  const VkSpecializationInfo special{static_cast<uint32_t>(entries.size()), entries.data(), spec.size() * 4,
                                     spec.data()};
  VkComputePipelineCreateInfo info{};
  info.sType = VK_STRUCTURE_TYPE_COMPUTE_PIPELINE_CREATE_INFO;
  info.flags = VK_PIPELINE_CREATE_DISPATCH_BASE;
  info.stage.sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO;
  info.stage.stage = VK_SHADER_STAGE_COMPUTE_BIT;
  info.stage.module = module;
  info.stage.pName = "main";
  info.stage.pSpecializationInfo = &special;
  info.layout = k.layout;
  VkPipelineShaderStageRequiredSubgroupSizeCreateInfo size{};
  size.sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_REQUIRED_SUBGROUP_SIZE_CREATE_INFO;
  const SubgroupRequest request = subgroup_request(device_.caps(), subgroup_size);
  size.requiredSubgroupSize = request.size;
  info.stage.flags = request.flags;
  if (request.size) info.stage.pNext = &size;
  if (device_.captures_statistics()) info.flags |= VK_PIPELINE_CREATE_CAPTURE_STATISTICS_BIT_KHR;
  const VkResult made = vk.vkCreateComputePipelines(device_.handle(), cache_, 1, &info, nullptr, &k.pipeline);
  vk.vkDestroyShaderModule(device_.handle(), module, nullptr);
  check(made, k.name.c_str());
  if (device_.captures_statistics()) k.statistics = read_statistics(device_, k.pipeline);
  return k;
}

}  // namespace vkflux
