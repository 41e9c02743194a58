// The JSON header of a safetensors file, read without building a tree of it: a header may be 100 MB of
// hostile text.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "model/io/safetensors.h"

namespace vkflux::io {

struct SafetensorsHeader {
  std::map<std::string, TensorInfo> tensors;
  std::map<std::string, std::string> metadata;
};

/// Every tensor's dtype, shape and byte range, with the ranges covering [0, data_size) exactly once. Error
/// format names `path` and the tensor. Unknown fields of an entry are errors.
SafetensorsHeader parse_safetensors_header(std::string_view text, const std::string& path,
                                           uint64_t data_size);

}  // namespace vkflux::io
