// safetensors: the checkpoint container (format of Hugging Face's safetensors library). A file is treated as
// hostile: all arithmetic is checked, and every range and shape is verified before anything is allocated.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "model/io/file.h"

namespace vkflux::io {

enum class FileDType { f64, f32, f16, bf16, f8_e4m3, f8_e5m2, i64, i32, i16, i8, u64, u32, u16, u8, boolean };
size_t size_of(FileDType t);
std::string_view name(FileDType t);  // as in the file: "F32"
std::optional<FileDType> file_dtype(std::string_view name);

/// Decodes values of a floating-point dtype.
std::vector<float> decode_f32(FileDType dtype, std::span<const std::byte> bytes);

struct TensorInfo {
  std::string name;
  FileDType dtype = FileDType::f32;
  std::vector<int64_t> shape;
  uint64_t begin = 0, end = 0;  // bytes in the data area
  int64_t numel() const;
};

class SafetensorsFile {
 public:
  /// Error io or format, naming the file and the tensor.
  explicit SafetensorsFile(const std::string& path);

  const std::map<std::string, TensorInfo>& tensors() const { return tensors_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  bool has(const std::string& name) const { return tensors_.count(name) != 0; }
  const TensorInfo& info(const std::string& name) const;
  /// Bytes [offset, offset + out.size()) of the tensor.
  void read(const TensorInfo& tensor, uint64_t offset, std::span<std::byte> out) const;
  std::vector<std::byte> read_bytes(const std::string& name) const;
  std::vector<float> read_f32(const std::string& name) const;    // any floating-point dtype
  std::vector<int32_t> read_i32(const std::string& name) const;  // any integer dtype; values must fit
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  ReadFile file_;
  uint64_t data_start_ = 0;
  std::map<std::string, TensorInfo> tensors_;
  std::map<std::string, std::string> metadata_;
};

/// One or more files seen as one set of tensors: a .safetensors file, a *.safetensors.index.json, or a folder
/// that holds {model,diffusion_pytorch_model}.safetensors[.index.json]. A tensor in two shards, or one that
/// is not in the shard that the index names, is Error format; one that the index doesn't list is left out
/// with a warning.
class Checkpoint {
 public:
  explicit Checkpoint(const std::string& path);
  const std::map<std::string, TensorInfo>& tensors() const { return tensors_; }
  bool has(const std::string& name) const { return tensors_.count(name) != 0; }
  const TensorInfo& info(const std::string& name) const;
  void read(const TensorInfo& tensor, uint64_t offset, std::span<std::byte> out) const;
  std::vector<float> read_f32(const std::string& name) const;
  const std::string& path() const { return path_; }
  const std::map<std::string, std::string>& metadata() const { return files_.front()->metadata(); }
  const std::vector<std::string>& warnings() const { return warnings_; }

 private:
  void add_shards(const std::string& index);
  std::string path_;
  std::vector<std::string> warnings_;
  std::vector<std::unique_ptr<SafetensorsFile>> files_;
  std::map<std::string, TensorInfo> tensors_;
  std::map<std::string, size_t> owner_;
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

/// Up to three of `candidates` that look like `name`, for error messages.
std::string nearest(const std::string& name, const std::vector<std::string>& candidates);

}  // namespace vkflux::io
