#include "model/flux/weights.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <numeric>
#include <utility>

#include "model/vae/codec.h"
#include "model/weight_stream.h"
#include "vk/error.h"

namespace vkflux {
namespace {

// What acquire() is called for, by the prefixes of the parameters' names.
std::vector<std::string> steps_of(const Flux1& model) {
  std::vector<std::string> out;
  for (const PassPart& p : model.parts()) out.push_back(p.name);
  return out;
}
std::vector<std::string> steps_of(const T5Encoder& model) {
  std::vector<std::string> out;
  for (int64_t i = 0; i < model.config().layers; ++i) out.push_back("encoder.block." + std::to_string(i));
  return out;
}
template <class Module>
std::vector<std::string> steps_of(const Module&) {
  return {};
}

// Those of them that have weights.
std::vector<std::string> layers_of(const Flux1& model) {
  std::vector<std::string> out;
  for (const AttentionLayer& l : model.layout().layers) out.push_back(l.name);
  return out;
}

// By step, from what is said by layer.
std::vector<bool> by_step(const std::vector<std::string>& steps, const std::vector<std::string>& layers,
                          const std::vector<bool>& streams) {
  std::vector<bool> out(steps.size());
  for (size_t i = 0; i < std::min(layers.size(), streams.size()); ++i) {
    const auto at = std::find(steps.begin(), steps.end(), layers[i]);
    if (at != steps.end()) out[static_cast<size_t>(at - steps.begin())] = streams[i];
  }
  return out;
}

uint64_t weight_bytes(Device& device) {
  return device.pool().usage().by_class[static_cast<size_t>(MemoryClass::weights)];
}

template <class Module>
void set_stream(Module& module, std::shared_ptr<WeightStream> stream) {
  if constexpr (requires { module.stream_weights(stream); }) module.stream_weights(std::move(stream));
}

}  // namespace

const char* name(FluxPart part) {
  constexpr std::array<const char*, 4> names{"text_encoder", "text_encoder_2", "transformer", "vae"};
  return names[static_cast<size_t>(part)];
}

FluxWeights::FluxWeights(Device& device, FluxConfigs configs, Open open, Options options)
    : device_(device), configs_(std::move(configs)), open_(std::move(open)), options_(std::move(options)) {
  for (const FluxPart p : kFluxParts) {
    const PartUse use = p == FluxPart::transformer ? PartUse::per_step
                        : p == FluxPart::vae       ? PartUse::per_picture
                                                   : PartUse::per_prompt;
    parts_.push_back({name(p), bytes_of(p), use, {}});
  }
  parts_[static_cast<size_t>(FluxPart::t5)].layers = steps_of(T5Encoder(configs_.t5));
  parts_[static_cast<size_t>(FluxPart::transformer)].layers = layers_of(Flux1(configs_.transformer));
  const std::vector<bool> stays = parts_that_stay(parts_, usable_bytes(device_), options_.keep_parts);
  for (size_t i = 0; i < parts_.size(); ++i) residency_.parts[parts_[i].name].stays = stays[i];
}

uint64_t FluxWeights::bytes_of(FluxPart which) {
  const uint64_t bytes = device_bytes(*open_(which, names(which)), weights(which), storage(which));
  return bytes + (options_.loras ? options_.loras->device_bytes(name(which), weights(which)) : 0);
}

io::NameTable FluxWeights::names(FluxPart which) const {
  switch (which) {
    case FluxPart::clip:
      return io::clip_names();
    case FluxPart::t5:
      return io::t5_names();
    case FluxPart::transformer:
      return io::flux1_names();
    case FluxPart::vae:
      break;
  }
  return io::vae_names(configs_.vae.levels());
}

const StorageRules& FluxWeights::storage(FluxPart which) const {
  static const StorageRules none;
  return which == FluxPart::vae    ? none
         : which == FluxPart::clip ? clip_storage()
         : which == FluxPart::t5   ? t5_storage()
                                   : flux1_storage();
}

// The part that is held, or a new one with its file's weights, which is held when it stays.
template <class Module, class Config>
std::shared_ptr<Module> FluxWeights::part(FluxPart which, std::shared_ptr<Module>& held,
                                          const Config& config) {
  if (held) return held;
  const ErrorContext context(name(which));
  auto module = std::make_shared<Module>(config);
  const auto file = open_(which, names(which));
  const std::vector<Param> params = parameters(*module);
  const uint64_t before = weight_bytes(device_);
  const PartResidency& residency = residency_.parts[name(which)];
  const std::vector<std::string> steps = steps_of(*module);
  set_stream(*module,
             load_streamed(params, steps,
                           by_step(steps, parts_[static_cast<size_t>(which)].layers, residency.streams), file,
                           device_, weights(which), storage(which)));
  for (const std::string& remark : {misfits(storage(which), params, weights(which)), file->mixed()}) {
    if (options_.remark && !remark.empty() && !device_.rehearsing())
      options_.remark(file->path() + ": " + remark);
  }
  attach_loras(which, *module, *file);
  if (residency.stays) {
    held = module;
    held_.bytes[static_cast<size_t>(which)] = weight_bytes(device_) - before;
  }
  return module;
}

template <class Module>
void FluxWeights::attach_loras(FluxPart which, Module& module, const io::NamedTensors& file) {
  // Matrices that stream aren't on the device now.
  lora::ReadParameter read;
  if (residency_.parts[name(which)].streamed() > 0)
    read = [&file](const std::string& parameter) { return file.read_f32(parameter); };
  uint64_t bytes = 0;
  if constexpr (requires { lora::modules_of(module); }) {
    if (options_.loras) bytes = options_.loras->attach(name(which), module, read);
  }
  if (bytes && options_.remark && !device_.rehearsing() && told_.insert(which).second)
    options_.remark(fmt::format("{}: LoRA takes {:.1f} MB beside its weights", name(which),
                                static_cast<double>(bytes) * 1e-6));
}

std::shared_ptr<Flux1> FluxWeights::transformer() {
  return part(FluxPart::transformer, held_.transformer, configs_.transformer);
}
std::shared_ptr<ClipText> FluxWeights::clip() {
  return part(FluxPart::clip, held_.clip, configs_.clip);
}
std::shared_ptr<T5Encoder> FluxWeights::t5() {
  return part(FluxPart::t5, held_.t5, configs_.t5);
}
std::shared_ptr<LatentCodec> FluxWeights::codec() {
  if (const auto& tiny = configs_.tiny_vae) {
    return tiled(load_tiny_codec(device_, configs_.tiny_vae_path, tiny->channels, tiny->cell), tiny->cell,
                 residency_.tiling);
  }
  return tiled(std::make_shared<AutoencoderCodec>(part(FluxPart::vae, held_.vae, configs_.vae)),
               configs_.vae.factor(), residency_.tiling);
}

void FluxWeights::let_go(FluxPart which) {
  held_.bytes[static_cast<size_t>(which)] = 0;
  if (which == FluxPart::clip) held_.clip.reset();
  if (which == FluxPart::t5) held_.t5.reset();
  if (which == FluxPart::transformer) held_.transformer.reset();
  if (which == FluxPart::vae) held_.vae.reset();
}

bool FluxWeights::use_f32(FluxPart which) {
  if (weights(which) == DType::f32) return false;
  exact_.insert(which);
  let_go(which);
  parts_[static_cast<size_t>(which)].bytes = bytes_of(which);
  return true;
}

void FluxWeights::set_residency(const Residency& residency) {
  for (const FluxPart p : kFluxParts) {
    if (residency_.parts[name(p)] == residency.parts.at(name(p))) continue;
    let_go(p);
  }
  residency_ = residency;
}

uint64_t FluxWeights::held_bytes() const {
  return std::accumulate(held_.bytes.begin(), held_.bytes.end(), uint64_t{0});
}

std::shared_ptr<void> FluxWeights::set_aside() {
  struct Aside {
    FluxWeights& weights;
    Held held;
    Residency residency;
    ~Aside() {
      weights.held_ = std::move(held);
      weights.residency_ = std::move(residency);
    }
  };
  return std::shared_ptr<Aside>(new Aside{*this, std::exchange(held_, {}), residency_});
}

}  // namespace vkflux
