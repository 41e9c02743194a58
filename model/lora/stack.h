// The changes that several LoRA files make to one module, in one.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "model/lora/factors.h"
#include "model/lora/modules.h"

namespace vkflux::lora {

/// The weight that DoRA needs to know.
struct Base {
  /// Norms of the rows of the changed weight: rows of the weight + strength * change.
  std::function<std::vector<float>(const Change&, float strength)> row_norms;
  /// Rows [row, row + rows) of the weight, [rows, columns].
  std::function<std::vector<float>(int64_t row, int64_t rows, int64_t columns)> rows;
};
/// Values of a parameter by its name, from a checkpoint.
using ReadParameter = std::function<std::vector<float>(const std::string&)>;
/// Of a weight on the device, in whatever type, or of what `read` gives where the device doesn't keep it:
/// norms are computed there.
Base device_base(const Module& module, const ReadParameter& read = {});
/// Of values [out, in] that outlive it.
Base host_base(const std::vector<float>& values);

class Stack {
 public:
  explicit Stack(const Module& module) : module_(module) {}

  /// One more change, `strength` times. DoRA replaces the row W of a weight by
  ///   m (W + strength d) / |W + strength d|,
  /// several of them add up what each does to W.
  void add(const Change& change, float strength, const Base& base);

  /// Puts all of it beside the linear layer's weight, or into the norm's tensors. -> bytes on the device
  uint64_t attach(const Module& module, const ReadParameter& read = {}) const;
  /// Adds it to the weight's values; false: nothing to add.
  bool merge_weight(std::vector<float>& values) const;
  bool merge_bias(std::vector<float>& values) const;

 private:
  void add_norm(const Change& change, float strength);
  void decompose(Change& change, float strength, const Base& base);
  void decompose_columns(Change& change, float strength, const Base& base);
  std::shared_ptr<const SidePath> side_path(Device& device, DType matrices) const;

  const Module& module_;
  std::vector<Change> changes_;            // of the weight; strengths and gains are in them
  std::vector<float> gain_, bias_, norm_;  // [out] each, or empty
  std::vector<float> norm_value_;
};

}  // namespace vkflux::lora
