// The parts of a model on the device: loaded when they are asked for, and held as a Residency says. A family
// says by recipes which parts there are; everything about memory is here.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "model/backbone.h"
#include "model/io/names.h"
#include "model/lora/lora.h"
#include "model/module.h"
#include "model/residency.h"
#include "model/weight_storage.h"
#include "model/weight_stream.h"

namespace vkflux {

/// A module whose type is known to its recipe alone, before it has weights.
struct PartModule {
  std::shared_ptr<void> module;
  std::vector<Param> params;
  std::vector<std::string> steps;   // what acquire() is called for, in order: prefixes of parameters
  std::vector<std::string> layers;  // those of them that have weights, which can stream
  std::function<void(std::shared_ptr<WeightStream>)> stream_weights;  // null: it can't
  std::function<lora::Modules()> lora_modules;                        // null: LoRA files don't change it
};

/// What acquire() of a module is called for: every part of a backbone, every layer of a module that lists
/// its layers' prefixes.
template <class Module>
PartModule part_module(std::shared_ptr<Module> module) {
  PartModule out;
  out.params = parameters(*module);
  if constexpr (std::is_base_of_v<Backbone, Module>) {
    for (const PassPart& p : module->parts()) out.steps.push_back(p.name);
    for (const AttentionLayer& l : module->layout().layers) out.layers.push_back(l.name);
  } else if constexpr (requires { module->layer_names(); }) {
    out.steps = out.layers = module->layer_names();
  }
  if constexpr (requires(std::shared_ptr<WeightStream> s) { module->stream_weights(s); }) {
    out.stream_weights = [&m = *module](std::shared_ptr<WeightStream> s) { m.stream_weights(std::move(s)); };
  }
  if constexpr (requires { lora::modules_of(*module); }) {
    out.lora_modules = [&m = *module] { return lora::modules_of(m); };
  }
  out.module = std::move(module);
  return out;
}

/// How a part is made and stored.
struct PartRecipe {
  std::string name;  // of its folder in diffusers' layout: "text_encoder_2"
  PartUse use = PartUse::per_step;
  io::NameTable names;                    // its file's names as ours
  const StorageRules* storage = nullptr;  // null: always f32
  std::function<PartModule()> make;       // without weights
};
template <class Module, class Config>
PartRecipe part_recipe(std::string name, PartUse use, io::NameTable names, const StorageRules* storage,
                       Config config) {
  return {std::move(name), use, std::move(names), storage,
          [config = std::move(config)] { return part_module(std::make_shared<Module>(config)); }};
}

class PartWeights {
 public:
  struct Options {
    WantedType weights = DType::f32;
    std::function<void(const std::string&)> remark;
    std::optional<bool> keep_parts;
    const LoraSet* loras = nullptr;  // applied beside the weights
  };
  /// Opens a part's file, with its names as ours.
  using Open = std::function<std::shared_ptr<const io::NamedTensors>(const PartRecipe&)>;
  PartWeights(Device& device, std::vector<PartRecipe> recipes, Open open, Options options);

  /// The part that is held, or a new one with its file's weights, which is held when it stays. Module is the
  /// recipe's.
  template <class Module>
  std::shared_ptr<Module> get(const std::string& name) {
    return std::static_pointer_cast<Module>(part(name));
  }
  /// From now on a part has f32 weights, whatever was asked for; false: it has them already.
  bool use_f32(const std::string& name);

  // As of a Model.
  std::vector<ModelPart> parts() const;
  const Residency& residency() const { return residency_; }
  void set_residency(const Residency& residency);
  uint64_t held_bytes() const;
  std::shared_ptr<void> set_aside();

 private:
  struct Held {
    std::shared_ptr<void> module;
    uint64_t bytes = 0;  // on the device
  };
  struct Part {
    PartRecipe recipe;
    ModelPart about;
    bool exact = false;       // use_f32() was called for it
    bool loras_told = false;  // a remark was made on its LoRAs
  };
  Part& find(const std::string& name);
  std::shared_ptr<void> part(const std::string& name);
  WantedType weights(const Part& part) const;
  uint64_t bytes_of(const Part& part) const;
  void attach_loras(Part& part, const PartModule& module, const io::NamedTensors& file);

  Device& device_;
  std::vector<Part> parts_;
  Open open_;
  Options options_;
  Residency residency_;
  std::map<std::string, Held> held_;  // by the parts' names
};

/// Opens the parts of a model that has shapes alone: they can only be rehearsed (vk/rehearsal.h).
PartWeights::Open shapes_alone();

}  // namespace vkflux
