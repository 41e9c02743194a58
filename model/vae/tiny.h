// Tiny autoencoders (TAEF1, TAEF2): a picture of a latent in a fraction of the time, a little less sharp.
// They work on latents as the transformer sees them.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "model/component.h"
#include "model/io/tensor_source.h"
#include "model/latent_codec.h"

namespace vkflux {

/// Reads a tiny autoencoder: a folder of diffusers' AutoencoderTiny, or a file with its names, those of
/// ComfyUI (taesd_encoder., taesd_decoder.) or the original ones (a decoder alone). How many layers and how
/// wide follows from the tensors. Error format names what doesn't fit; io where there is no such file.
/// channels, cell: of the model's latents, and the pixels along a side of a cell; where the model's are
/// folded squares of the file's (FLUX.2) they are folded. encode() is an error
/// unsupported where the file has only a decoder.
std::shared_ptr<LatentCodec> load_tiny_codec(Device& device, const std::string& path, int64_t channels,
                                             int64_t cell);

/// Of the latents: their channels, and the pixels along a side of a cell.
struct TinySizes {
  int64_t channels = 0, cell = 0;
};
/// By the names and shapes of a tiny autoencoder's file, folded where that gives `channels`; nothing when the
/// file is none.
std::optional<TinySizes> tiny_sizes(const io::TensorSource& file, int64_t channels);

ComponentKind tiny_autoencoder_component();

}  // namespace vkflux
