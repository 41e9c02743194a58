// The three parts of a FLUX.2 model.
#pragma once

#include <memory>
#include <vector>

#include "model/flux2/transformer.h"
#include "model/part_weights.h"
#include "model/text/decoder.h"
#include "model/vae_part.h"

namespace vkflux {

struct Flux2Configs {
  Flux2Config transformer;
  DecoderConfig text;
  /// The hidden states of the text encoder that the transformer reads, side by side; only the layers up to
  /// the last of them are loaded.
  std::vector<int64_t> states;
  VaePart vae;

  int64_t text_layers() const;
};

/// The published models: "flux2-dev", "flux2-klein-9b", "flux2-klein-4b".
Flux2Configs flux2_configs(std::string_view name);

/// The text encoder's file under our names, which depend on it.
struct Flux2Text {
  io::NameTable names;  // of all but the embedding
  /// Where the rows of the embedding are read, which takes no memory of the device; null: in rehearsals only.
  std::shared_ptr<const io::NamedTensors> embedding;
};
/// text_encoder, transformer, vae.
std::vector<PartRecipe> flux2_recipes(Device& device, const Flux2Configs& configs, Flux2Text text);

}  // namespace vkflux
