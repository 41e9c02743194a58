// A whole FLUX.1 checkpoint folder of a few thousand weights, for tests that read one.
#pragma once

#include <string>

namespace vkflux::test {

/// Writes it into the folder: diffusers layout, F32, values made from a counter; no device is needed.
void write_tiny_checkpoint(const std::string& folder);

}  // namespace vkflux::test
