// An autoencoder from its folder in diffusers layout.
#pragma once

#include <string>

#include "model/vae/autoencoder.h"

namespace vkflux {

/// dir holds config.json and the weights. Error io or format names the file.
AutoencoderKL load_autoencoder(Device& device, const std::string& dir);

}  // namespace vkflux
