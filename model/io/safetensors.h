// safetensors: the checkpoint container (format of Hugging Face's safetensors library). A file is treated as
// hostile: all arithmetic is checked, and every range and shape is verified before anything is allocated.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "model/io/file.h"
#include "model/io/tensor_source.h"

namespace vkflux::io {

/// Error io or format, naming the file and the tensor; the ranges of all tensors lie within the file as it
/// was opened.
class SafetensorsFile : public TensorSource {
 public:
  explicit SafetensorsFile(const std::string& path);

 private:
  void read_range(const TensorInfo& tensor, uint64_t offset, std::span<std::byte> out) const override;

  ReadFile file_;
  uint64_t data_start_ = 0;
};

struct TensorData {
  std::string name;
  FileDType dtype = FileDType::f32;
  std::vector<int64_t> shape;
  std::vector<std::byte> bytes;
};

/// Encodes f32 values as f32, f16 or bf16.
TensorData tensor_data(std::string name, std::vector<int64_t> shape, std::span<const float> values,
                       FileDType dtype = FileDType::f32);

/// Atomic, deterministic (sorted by name). Error invalid_argument where a name appears twice or isn't UTF-8,
/// or where the bytes don't fit the shape.
void write_safetensors(const std::string& path, const std::vector<TensorData>& tensors,
                       const std::map<std::string, std::string>& metadata = {});

}  // namespace vkflux::io
