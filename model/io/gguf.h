// GGUF: the container of ggml's programs, versions 2 and 3, little-endian. A file is treated as hostile: all
// arithmetic is checked, and every count, range and shape is verified before anything is allocated for it.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "model/io/file.h"
#include "model/io/json.h"
#include "model/io/tensor_source.h"

namespace vkflux::io {

/// Error io or format, naming the file and the tensor or key; Error unsupported for stored types that aren't
/// read, and how to convert them. Shapes are in the order of safetensors (GGUF has the fastest dimension
/// first). metadata() has the scalar values as text.
class GgufFile : public TensorSource {
 public:
  explicit GgufFile(const std::string& path);

  /// All key-value pairs; arrays as JSON arrays.
  const Json& values() const { return values_; }

 private:
  void read_range(const TensorInfo& tensor, uint64_t offset, std::span<std::byte> out) const override;

  ReadFile file_;
  Json values_;
  uint64_t data_start_ = 0;
};

/// The number of a type in GGUF files; none: the format doesn't have it.
std::optional<uint32_t> gguf_type(FileDType t);

/// Whether a file begins as GGUF files do.
bool is_gguf(std::string_view start);

}  // namespace vkflux::io
