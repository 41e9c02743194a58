// The autoencoder of a model, as one of its parts: the family's own kind, or a tiny one in its place.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "model/latent_codec.h"
#include "model/part_places.h"
#include "model/part_weights.h"
#include "model/vae/autoencoder.h"
#include "model/vae/tiny.h"

namespace vkflux {

struct VaePart {
  AutoencoderConfig config;
  std::optional<TinySizes> tiny;  // then `config` means nothing
  std::string path;

  /// Channels of the latent as the transformer sees it, and pixels along a side of its cells.
  int64_t channels() const { return tiny ? tiny->channels : config.folded_channels(); }
  int64_t cell() const { return tiny ? tiny->cell : config.factor(); }
};

/// Reads a file's header and its config. channels: of the transformer's latent; statistics: whether it is of
/// FLUX.2, whose autoencoders have statistics of their latents. Error unsupported for the other family's.
VaePart read_vae_part(const ModelFiles::Part& files, int64_t channels, bool statistics);
/// The part "vae".
PartRecipe vae_recipe(const VaePart& vae);
/// The codec of a model that has this recipe, as its residency wants it.
std::shared_ptr<LatentCodec> vae_codec(Device& device, PartWeights& weights, const VaePart& vae);

}  // namespace vkflux
