// A whole checkpoint folder of a few thousand random weights, for tests of everything above the transformer:
// 1 double and 3 single blocks, one head of 16, 4 pixels per token, 16 x 8 pixels in 3 steps with cfg 2.
#pragma once

#include <string>

namespace vkflux::test {

/// Made once for the process and gone with it.
const std::string& tiny_pipeline();

}  // namespace vkflux::test
