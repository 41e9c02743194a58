// An autoencoder from and to its folder in diffusers layout.
#pragma once

#include <string>

#include "model/component.h"
#include "model/vae/autoencoder.h"

namespace vkflux {

/// dir holds config.json and the weights. Error io or format names the file.
AutoencoderKL load_autoencoder(Device& device, const std::string& dir);
/// sample_size: pixels a side of the pictures it was trained on. Matrices are stored as `matrices`.
void save_autoencoder(const std::string& dir, AutoencoderKL& model, int64_t sample_size,
                      io::FileDType matrices = io::FileDType::f16);
/// Error format for an autoencoder whose latents a FLUX.2 transformer couldn't read.
void need_statistics(const AutoencoderConfig& config);
/// FLUX.1's autoencoders, and FLUX.2's, which have statistics of their latents: files with an encoder and a
/// decoder, or with a decoder alone.
ComponentKind autoencoder_component();
ComponentKind flux2_autoencoder_component();
/// Whether a file looks like either, by its names.
bool has_autoencoder(const io::TensorSource& file);

}  // namespace vkflux
