// What a user asks for.
#pragma once

#include <string>

namespace vkflux {

/// A LoRA file, and how strongly it is applied: 1 as trained, 0 not at all, below 0 the other way.
struct LoraUse {
  std::string path;
  float weight = 1;
};

}  // namespace vkflux
