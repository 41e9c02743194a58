// What students are trained on: calls of native attention, kept in host memory under one budget of bytes over
// all layers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "model/attention/by_layer.h"
#include "model/attention/hkr/hkr.h"
#include "model/io/json.h"
#include "model/io/safetensors.h"

namespace vkflux {

/// Values on the host as they are stored.
struct HostTensor {
  io::FileDType dtype = io::FileDType::f16;
  std::vector<int64_t> shape;
  std::vector<std::byte> bytes;

  uint64_t nbytes() const { return bytes.size(); }
  std::vector<float> values() const { return io::decode_f32(dtype, bytes); }
};
/// Stores `values` as f32, f16 or bf16 (too large ones for f16 become its largest). Error invalid_argument
/// when their number isn't the shape's.
HostTensor host_tensor(std::span<const float> values, std::vector<int64_t> shape, io::FileDType dtype);

/// One call: queries [B, H, n, D] at the chosen rows, all keys and values [B, H, Nk, D], and native
/// attention's output [B, H, n, D] at the same rows.
struct ReplaySample {
  HostTensor q_sub, k_full, v_full, teacher_sub;
  std::vector<uint8_t> key_mask;  // [B, Nk], 1 = keep; empty: all
  HkrContext context;
  int64_t created = 0;  // counts all pushes from 1; set by the buffer

  uint64_t nbytes() const;
};

class ReplayBuffer {
 public:
  /// per_layer: samples a layer keeps at most (at least 1); max_bytes over all layers, 0: unlimited.
  ReplayBuffer(int64_t per_layer, uint64_t max_bytes);

  /// Drops the oldest samples of all layers until the new one fits, then the layer's own oldest. A sample
  /// over the whole budget empties the buffer and isn't kept.
  void push(const std::string& layer, ReplaySample sample);
  size_t size(const std::string& layer) const;
  /// The sample that push() numbered so, if the layer still has it.
  ReplaySample* find(const std::string& layer, int64_t created);
  /// The layer's samples, oldest first; Error invalid_argument past the end.
  const ReplaySample& at(const std::string& layer, size_t index) const;
  /// Empties one layer and returns the bytes that this freed.
  uint64_t clear(const std::string& layer);
  void clear();

  uint64_t bytes() const { return bytes_; }
  uint64_t max_bytes() const { return max_bytes_; }
  int64_t created() const { return created_; }
  std::vector<std::string> layers() const;  // that hold samples, in order

  /// For a checkpoint: tensors "replay.<created>.<field>" and a JSON object that describes them. restore()
  /// replaces the contents, keeps the budget, and refuses (Error format) what doesn't fit together.
  io::Json save(std::vector<io::TensorData>& tensors) const;
  void restore(const io::SafetensorsFile& file, const io::Json& description);

 private:
  bool drop_oldest();
  void drop_front(const std::string& layer);

  int64_t per_layer_;
  uint64_t max_bytes_, bytes_ = 0;
  int64_t created_ = 0;
  ByLayer<std::deque<ReplaySample>> samples_;
};

/// "float16", "bfloat16", "float32"; nothing for another word.
std::optional<io::FileDType> replay_dtype(const std::string& word);

}  // namespace vkflux
