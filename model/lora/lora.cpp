#include "model/lora/lora.h"

#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <cmath>

#include "autograd/packed.h"
#include "model/lora/factors.h"
#include "vk/error.h"

namespace vkflux {

using lora::Adapter;
using lora::Change;

struct LoraSet::Opened {
  LoraUse use;
  std::unique_ptr<io::TensorSource> source;
  std::unique_ptr<lora::File> file;
};

LoraSet::LoraSet() = default;
LoraSet::~LoraSet() = default;
LoraSet::LoraSet(LoraSet&&) noexcept = default;
LoraSet& LoraSet::operator=(LoraSet&&) noexcept = default;

LoraSet::LoraSet(const std::vector<LoraUse>& uses, std::vector<lora::Component> components,
                 const std::function<void(const std::string&)>& remark)
    : components_(std::make_unique<std::vector<lora::Component>>(std::move(components))) {
  const lora::ModuleTable table(*components_);
  for (const LoraUse& use : uses) {
    if (!std::isfinite(use.weight))
      throw Error(ErrorCode::invalid_argument, fmt::format("{}: its weight is {}", use.path, use.weight));
    Opened o{use, lora::open_lora(use.path), nullptr};
    o.file = std::make_unique<lora::File>(*o.source, table);
    o.file->refuse_strangers();
    if (remark) remark(fmt::format("{} (weight {}): {}", use.path, use.weight, o.file->report()));
    files_.push_back(std::move(o));
  }
}

uint64_t LoraSet::device_bytes(const std::string& part, WantedType matrices) const {
  int64_t values = 0;
  for (const Opened& o : files_) {
    for (const Adapter& a : o.file->adapters()) {
      if (a.place.component->part != part) continue;
      for (const auto& [role, name] : a.tensors) values += o.source->info(name).numel();
    }
  }
  return static_cast<uint64_t>(values) * (matrices == DType::f32 ? 4 : 2);
}

std::string LoraSet::fingerprint(const std::string& part) const {
  std::string out;
  for (const Opened& o : files_) {
    uLong sum = ::crc32(0, nullptr, 0);
    const auto add = [&](const void* bytes, size_t n) {
      sum = ::crc32_z(sum, static_cast<const Bytef*>(bytes), n);
    };
    if (o.use.weight == 0 || o.file->adapters_of(part) == 0) continue;
    for (const Adapter& a : o.file->adapters()) {
      if (a.place.component->part != part) continue;
      for (const auto& [role, name] : a.tensors) {
        const std::vector<std::byte> bytes = o.source->read_bytes(name);
        add(name.data(), name.size());
        add(bytes.data(), bytes.size());
      }
      const double scale = o.file->scale(a, 1);  // where it comes from metadata
      add(&scale, sizeof(scale));
    }
    out += fmt::format("{:08x} {} ", sum, o.use.weight);
  }
  return out;
}

uint64_t LoraSet::attach(const std::string& part, const lora::Modules& modules,
                         const lora::ReadParameter& read) const {
  std::map<std::string, std::vector<std::pair<const Opened*, const Adapter*>>> by_module;
  for (const Opened& o : files_) {
    for (const Adapter& a : o.file->adapters())
      if (a.place.component->part == part && o.use.weight != 0)
        by_module[a.place.module].emplace_back(&o, &a);
  }
  uint64_t bytes = 0;
  // Module by module, so that the host holds the values of one only.
  for (const auto& [name, module] : modules) {
    if (module.linear) module.linear->side.reset();
    const auto changes = by_module.find(name);
    if (changes == by_module.end()) continue;
    lora::Stack stack(module);
    for (const auto& [opened, adapter] : changes->second) {
      const ErrorContext context(opened->use.path);
      stack.add(lora::read_change(*opened->file, *adapter), opened->use.weight,
                lora::device_base(module, read));
    }
    bytes += stack.attach(module, read);
  }
  return bytes;
}

bool LoraSet::changes(const std::string& part, const std::string& parameter) const {
  const std::string module = parameter.substr(0, parameter.rfind('.'));
  return std::any_of(files_.begin(), files_.end(), [&](const Opened& o) {
    const auto& all = o.file->adapters();
    return o.use.weight != 0 && std::any_of(all.begin(), all.end(), [&](const Adapter& a) {
             return a.place.component->part == part && a.place.module == module;
           });
  });
}

bool LoraSet::merge(const std::string& part, const std::string& parameter, std::vector<float>& values) const {
  if (empty()) return false;
  const auto component =
      std::find_if(components_->begin(), components_->end(), [&](const auto& c) { return c.part == part; });
  if (component == components_->end()) return false;
  const auto found = component->modules.find(parameter.substr(0, parameter.rfind('.')));
  if (found == component->modules.end()) return false;
  const auto& [name, module] = *found;
  const bool bias = parameter.ends_with(".bias");
  lora::Stack stack(module);
  for (const Opened& o : files_) {
    if (o.use.weight == 0) continue;
    const ErrorContext context(o.use.path);
    for (const Adapter& a : o.file->adapters()) {
      if (a.place.component != &*component || a.place.module != name) continue;
      Change change = lora::read_change(*o.file, a);
      // A bias doesn't depend on the weight.
      if (bias) change.magnitude.clear();
      stack.add(change, o.use.weight, lora::host_base(values));
    }
  }
  return bias ? stack.merge_bias(values) : stack.merge_weight(values);
}

}  // namespace vkflux
