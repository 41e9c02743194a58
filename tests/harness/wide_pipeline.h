// A checkpoint folder with some megabytes of random weights in several layers, for tests of memory: a
// transformer of 3 double and 5 single blocks, T5 of 4 layers, 8 pixels per token.
#pragma once

#include <string>

namespace vkflux::test {

/// Made once for the process and gone with it.
const std::string& wide_pipeline();

}  // namespace vkflux::test
