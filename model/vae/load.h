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
ComponentKind autoencoder_component();

}  // namespace vkflux
