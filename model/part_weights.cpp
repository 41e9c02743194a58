#include "model/part_weights.h"

#include <fmt/format.h>

#include <algorithm>

#include "vk/error.h"

namespace vkflux {
namespace {

const StorageRules kNoRules;

const StorageRules& rules_of(const PartRecipe& recipe) {
  return recipe.storage ? *recipe.storage : kNoRules;
}

// By step, from what is said by layer.
std::vector<bool> by_step(const PartModule& module, const std::vector<bool>& streams) {
  std::vector<bool> out(module.steps.size());
  for (size_t i = 0; i < std::min(module.layers.size(), streams.size()); ++i) {
    const auto at = std::find(module.steps.begin(), module.steps.end(), module.layers[i]);
    if (at != module.steps.end()) out[static_cast<size_t>(at - module.steps.begin())] = streams[i];
  }
  return out;
}

uint64_t weight_bytes(Device& device) {
  return device.pool().usage().by_class[static_cast<size_t>(MemoryClass::weights)];
}

/// The parameters of a module as a file that has no values.
class Shapes final : public io::TensorSource {
 public:
  Shapes(const std::string& name, const std::vector<Param>& params) : TensorSource(name) {
    for (const Param& p : params) {
      io::TensorInfo info;
      info.name = p.name;
      info.dtype = io::FileDType::bf16;
      info.shape.assign(p.shape.begin(), p.shape.end());
      info.end = 2 * static_cast<uint64_t>(p.shape.numel());
      tensors_.emplace(p.name, info);
    }
  }

 private:
  void read_range(const io::TensorInfo& tensor, uint64_t, std::span<std::byte>) const override {
    throw Error(ErrorCode::internal, path() + ": " + tensor.name + " has no values, only a shape");
  }
};

}  // namespace

PartWeights::Open shapes_alone() {
  return [](const PartRecipe& recipe) -> std::shared_ptr<const io::NamedTensors> {
    const auto source = std::make_shared<Shapes>(recipe.name, recipe.make().params);
    return {new io::NamedTensors(*source, {}), [source](const io::NamedTensors* named) { delete named; }};
  };
}

PartWeights::PartWeights(Device& device, std::vector<PartRecipe> recipes, Open open, Options options)
    : device_(device), open_(std::move(open)), options_(std::move(options)) {
  std::vector<ModelPart> about;
  for (PartRecipe& recipe : recipes) {
    Part part{std::move(recipe), {}};
    part.about = {part.recipe.name, bytes_of(part), part.recipe.use, part.recipe.make().layers};
    about.push_back(part.about);
    parts_.push_back(std::move(part));
  }
  const std::vector<bool> stays = parts_that_stay(about, usable_bytes(device_), options_.keep_parts);
  for (size_t i = 0; i < about.size(); ++i) residency_.parts[about[i].name].stays = stays[i];
}

PartWeights::Part& PartWeights::find(const std::string& name) {
  const auto at =
      std::find_if(parts_.begin(), parts_.end(), [&](const Part& p) { return p.recipe.name == name; });
  if (at == parts_.end()) throw Error(ErrorCode::internal, "the model has no part " + name);
  return *at;
}

WantedType PartWeights::weights(const Part& part) const {
  return part.exact || !part.recipe.storage ? WantedType(DType::f32) : options_.weights;
}

uint64_t PartWeights::bytes_of(const Part& part) const {
  const WantedType wanted = weights(part);
  const uint64_t bytes = device_bytes(*open_(part.recipe), wanted, rules_of(part.recipe));
  return bytes + (options_.loras ? options_.loras->device_bytes(part.recipe.name, wanted) : 0);
}

std::shared_ptr<void> PartWeights::part(const std::string& name) {
  if (const auto held = held_.find(name); held != held_.end()) return held->second.module;
  const ErrorContext context(name);
  Part& part = find(name);
  const PartModule module = part.recipe.make();
  const auto file = open_(part.recipe);
  const StorageRules& rules = rules_of(part.recipe);
  const uint64_t before = weight_bytes(device_);
  const PartResidency& residency = residency_.parts[name];
  auto stream = load_streamed(module.params, module.steps, by_step(module, residency.streams), file, device_,
                              weights(part), rules);
  if (module.stream_weights) module.stream_weights(std::move(stream));
  for (const std::string& remark : {misfits(rules, module.params, weights(part)), file->mixed()}) {
    if (options_.remark && !remark.empty() && !device_.rehearsing())
      options_.remark(file->path() + ": " + remark);
  }
  attach_loras(part, module, *file);
  if (residency.stays) held_[name] = {module.module, weight_bytes(device_) - before};
  return module.module;
}

void PartWeights::attach_loras(Part& part, const PartModule& module, const io::NamedTensors& file) {
  if (!options_.loras || options_.loras->empty() || !module.lora_modules) return;
  // Matrices that stream aren't on the device now.
  lora::ReadParameter read;
  if (residency_.parts[part.recipe.name].streamed() > 0)
    read = [&file](const std::string& parameter) { return file.read_f32(parameter); };
  const uint64_t bytes = options_.loras->attach(part.recipe.name, module.lora_modules(), read);
  if (bytes && options_.remark && !device_.rehearsing() && !std::exchange(part.loras_told, true))
    options_.remark(fmt::format("{}: LoRA takes {:.1f} MB beside its weights", part.recipe.name,
                                static_cast<double>(bytes) * 1e-6));
}

bool PartWeights::use_f32(const std::string& name) {
  Part& part = find(name);
  if (weights(part) == DType::f32) return false;
  part.exact = true;
  held_.erase(name);
  part.about.bytes = bytes_of(part);
  return true;
}

std::vector<ModelPart> PartWeights::parts() const {
  std::vector<ModelPart> out;
  for (const Part& p : parts_) out.push_back(p.about);
  return out;
}

void PartWeights::set_residency(const Residency& residency) {
  for (const Part& p : parts_) {
    const std::string& name = p.recipe.name;
    if (!(residency_.parts[name] == residency.parts.at(name))) held_.erase(name);
  }
  residency_ = residency;
}

uint64_t PartWeights::held_bytes() const {
  uint64_t out = 0;
  for (const auto& [name, held] : held_) out += held.bytes;
  return out;
}

std::shared_ptr<void> PartWeights::set_aside() {
  struct Aside {
    PartWeights& weights;
    std::map<std::string, Held> held;
    Residency residency;
    ~Aside() {
      weights.held_ = std::move(held);
      weights.residency_ = std::move(residency);
    }
  };
  return std::shared_ptr<Aside>(new Aside{*this, std::exchange(held_, {}), residency_});
}

}  // namespace vkflux
