// The four parts of a FLUX.1 model on the device: loaded when they are asked for, and held as a Residency
// says.
#pragma once

#include <array>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "model/flux/transformer.h"
#include "model/lora/lora.h"
#include "model/residency.h"
#include "model/text/clip.h"
#include "model/text/t5.h"
#include "model/vae/autoencoder.h"
#include "model/vae/tiny.h"

namespace vkflux {

/// By the names of the folders in diffusers' layout: text_encoder, text_encoder_2, transformer, vae.
enum class FluxPart : size_t { clip, t5, transformer, vae };
inline constexpr std::array kFluxParts{FluxPart::clip, FluxPart::t5, FluxPart::transformer, FluxPart::vae};
const char* name(FluxPart part);

struct FluxConfigs {
  ClipTextConfig clip;
  T5Config t5;
  Flux1Config transformer;
  AutoencoderConfig vae;
  /// A tiny autoencoder in its place, and where its file lies.
  std::optional<TinySizes> tiny_vae = {};
  std::string tiny_vae_path = {};
};

class FluxWeights {
 public:
  struct Options {
    WantedType weights = DType::f32;  // of all but the autoencoder
    std::function<void(const std::string&)> remark;
    std::optional<bool> keep_parts;
    const LoraSet* loras = nullptr;  // applied beside the weights
  };
  /// Opens a part's file, with its names as ours.
  using Open = std::function<std::shared_ptr<const io::NamedTensors>(FluxPart, const io::NameTable&)>;
  FluxWeights(Device& device, FluxConfigs configs, Open open, Options options);

  std::shared_ptr<Flux1> transformer();
  std::shared_ptr<LatentCodec> codec();
  std::shared_ptr<ClipText> clip();
  std::shared_ptr<T5Encoder> t5();

  /// From now on a part has f32 weights, whatever was asked for; false: it has them already.
  bool use_f32(FluxPart part);

  // As of a Model.
  const std::vector<ModelPart>& parts() const { return parts_; }
  const Residency& residency() const { return residency_; }
  void set_residency(const Residency& residency);
  uint64_t held_bytes() const;
  std::shared_ptr<void> set_aside();

 private:
  struct Held {
    std::shared_ptr<Flux1> transformer;
    std::shared_ptr<AutoencoderKL> vae;
    std::shared_ptr<ClipText> clip;
    std::shared_ptr<T5Encoder> t5;
    std::array<uint64_t, 4> bytes{};  // on the device, by part
  };
  template <class Module, class Config>
  std::shared_ptr<Module> part(FluxPart which, std::shared_ptr<Module>& held, const Config& config);
  io::NameTable names(FluxPart which) const;
  const StorageRules& storage(FluxPart which) const;
  WantedType weights(FluxPart which) const {
    return which == FluxPart::vae || exact_.count(which) ? WantedType(DType::f32) : options_.weights;
  }
  void let_go(FluxPart which);
  uint64_t bytes_of(FluxPart which);
  template <class Module>
  void attach_loras(FluxPart which, Module& module, const io::NamedTensors& file);

  Device& device_;
  FluxConfigs configs_;
  Open open_;
  Options options_;
  std::vector<ModelPart> parts_;
  Residency residency_;
  Held held_;
  std::set<FluxPart> exact_;  // the parts that use_f32() was called for
  std::set<FluxPart> told_;   // the parts whose LoRAs were told of
};

}  // namespace vkflux
