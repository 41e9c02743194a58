// Checkpoint files written tensor by tensor: names, types and shapes are known before, the bytes come when
// their turn is there, so that a file may be larger than memory.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "model/io/file.h"
#include "model/io/tensor_source.h"

namespace vkflux::io {

struct OutTensor {
  std::string name;
  FileDType dtype = FileDType::f32;
  std::vector<int64_t> shape;
  /// Gives exactly the bytes of the type and shape.
  std::function<void(const Sink&)> data;
};

/// Bytes of a tensor in a file. Error invalid_argument, naming `path` and the tensor, where its size
/// overflows or its rows aren't whole blocks.
uint64_t bytes_of(const std::string& path, const OutTensor& t);

/// Writes a tensor's data to `sink`. Error internal where it isn't as long as its type and shape say.
void write_data(const std::string& path, const OutTensor& t, const Sink& sink);

/// Atomic, deterministic: in the order of the names. Error invalid_argument where a name appears twice or
/// isn't UTF-8, and for blocks, which the format doesn't have.
void write_safetensors(const std::string& path, std::vector<OutTensor> tensors,
                       const std::map<std::string, std::string>& metadata = {});

using GgufValue = std::variant<std::string, uint32_t, float, bool>;
/// GGUF version 3, atomic, tensors and values in the order given, data aligned to 32 bytes. Error
/// invalid_argument where a name appears twice or is longer than ggml's readers take (63 bytes), for more
/// than four dimensions, and for types that the format doesn't have.
void write_gguf(const std::string& path, const std::vector<OutTensor>& tensors,
                const std::vector<std::pair<std::string, GgufValue>>& values);

}  // namespace vkflux::io
