// Where loaders read tensors from, whatever the format. What the tensors are called and how they are laid out
// is for model/io/names.h.
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

namespace vkflux::io {

enum class FileDType {
  f64,
  f32,
  f16,
  bf16,
  f8_e4m3,
  f8_e5m2,  // floating-point numbers
  q4_0,
  q4_1,
  q5_0,
  q5_1,
  q8_0,
  q2_k,
  q3_k,
  q4_k,
  q5_k,
  q6_k,  // blocks of them, of GGUF files
  i64,
  i32,
  i16,
  i8,
  u64,
  u32,
  u16,
  u8,
  boolean
};
std::string_view name(FileDType t);  // as in safetensors files: "F32"; blocks as in GGUF files: "Q4_K"
/// Of a safetensors file's name; blocks have none there.
std::optional<FileDType> file_dtype(std::string_view name);
/// Values of a block; 1: the type has none.
int64_t block_values(FileDType t);
/// Bytes of a value, or of a block.
size_t size_of(FileDType t);
bool is_float(FileDType t);  // numbers or blocks

/// Decodes values of a floating-point dtype, whole blocks.
std::vector<float> decode_f32(FileDType dtype, std::span<const std::byte> bytes);

struct TensorInfo {
  std::string name;
  FileDType dtype = FileDType::f32;
  std::vector<int64_t> shape;
  uint64_t begin = 0, end = 0;  // bytes in the data area of the file that holds it
  int64_t numel() const;
  uint64_t bytes() const { return end - begin; }
};

/// Named tensors with their shapes and stored types, of which any range of bytes can be read. A format is a
/// class that fills the tables when it is made and reads ranges. Ranges are copied: reading from a mapping of
/// the file was measured to be no faster, and a file that shrinks would end the program, where a read is an
/// error.
class TensorSource {
 public:
  virtual ~TensorSource() = default;
  TensorSource(const TensorSource&) = delete;
  TensorSource& operator=(const TensorSource&) = delete;

  const std::string& path() const { return path_; }
  const std::map<std::string, TensorInfo>& tensors() const { return tensors_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  /// Sentences on what is there and was left out.
  const std::vector<std::string>& warnings() const { return warnings_; }

  bool has(const std::string& name) const { return tensors_.count(name) != 0; }
  /// Error format names the nearest tensors when it is missing.
  const TensorInfo& info(const std::string& name) const;
  /// Bytes [offset, offset + out.size()) of the tensor. Error invalid_argument beyond its end; io or format
  /// when the file can't give them.
  void read(const TensorInfo& tensor, uint64_t offset, std::span<std::byte> out) const;
  std::vector<std::byte> read_bytes(const std::string& name) const;
  std::vector<float> read_f32(const std::string& name) const;    // any floating-point dtype
  std::vector<int32_t> read_i32(const std::string& name) const;  // any integer dtype; values must fit
  std::vector<double> read_f64(const std::string& name) const;   // any dtype

 protected:
  explicit TensorSource(std::string path) : path_(std::move(path)) {}

  std::string path_;
  std::map<std::string, TensorInfo> tensors_;
  std::map<std::string, std::string> metadata_;
  std::vector<std::string> warnings_;

 private:
  /// The range lies within the tensor.
  virtual void read_range(const TensorInfo& tensor, uint64_t offset, std::span<std::byte> out) const = 0;
};

/// The checkpoint of a folder: {diffusion_pytorch_model,model}.safetensors[.index.json], or with a variant
/// such as "fp16" the files that carry it in their names ("model.fp16.safetensors", "model.safetensors.index.
/// fp16.json"). Without one the plain files are taken, else those of the only variant there is. Error io
/// names what is there instead.
std::string find_checkpoint(const std::string& folder, const std::string& variant = {});

/// Opens what `path` names: a .safetensors file, a *.safetensors.index.json, a .gguf file, or a folder, of
/// which it is find_checkpoint(). A tensor in two shards, or one that is not in the shard that the index
/// names, is Error format; one that the index doesn't list is left out with a warning. path() is that of the
/// file or index itself. Error unsupported for formats that aren't read.
std::unique_ptr<TensorSource> open_tensors(const std::string& path);

/// Up to three of `candidates` that look like `name`, for error messages.
std::string nearest(const std::string& name, const std::vector<std::string>& candidates);

}  // namespace vkflux::io
