// Tiny autoencoders (TAEF1): a picture of a latent in a fraction of the time, a little less sharp. They work
// on latents as the transformer sees them.
#pragma once

#include <memory>
#include <string>

#include "model/latent_codec.h"

namespace vkflux {

/// Reads a tiny autoencoder: a folder of diffusers' AutoencoderTiny, or a file with its names, those of
/// ComfyUI (taesd_encoder., taesd_decoder.) or the original ones (a decoder alone). How many layers and how
/// wide follows from the tensors. Error format names what doesn't fit; io where there is no such file.
/// channels, cell: of the model's latents, and the pixels along a side of a cell. encode() is an error
/// unsupported where the file has only a decoder.
std::shared_ptr<const LatentCodec> load_tiny_codec(Device& device, const std::string& path, int64_t channels,
                                                   int64_t cell);

}  // namespace vkflux
