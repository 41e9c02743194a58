// Checkpoints of what is trained: the optimiser's state under the caller's names, counters and settings
// beside it. A file is read in two phases: everything is read and checked first, and only then anything is
// changed.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "model/io/safetensors.h"
#include "train/optimise.h"

namespace vkflux {

/// What stands before a parameter's name in a file; none: that arena isn't in it, or is somebody else's.
struct StateNames {
  std::optional<std::string> param, m, v, average;
};
/// Error invalid_argument names a tensor that isn't finite: training has diverged, and what it left must not
/// take the place of a good checkpoint.
void append_state(const Optimiser& optimiser, const StateNames& names, std::vector<io::TensorData>& tensors);
/// A tensor's values as they are now; the same error.
io::TensorData host_copy(const std::string& name, const Tensor& t);
/// The same error for parameters that somebody else writes.
void expect_finite(const Optimiser& optimiser);

/// Values of a file that are read, checked, and not yet where they belong.
class PendingValues {
 public:
  /// Error format when the file has no such tensor, another number of values, or one that isn't finite.
  void take(const io::SafetensorsFile& file, const std::string& name, const Tensor& to);
  void take(const io::SafetensorsFile& file, const Optimiser& optimiser, const StateNames& names);
  void apply() const;

 private:
  std::vector<std::pair<Tensor, std::vector<float>>> values_;
};

/// An entry of the metadata; "" when there is none.
std::string metadata_of(const io::SafetensorsFile& file, const std::string& key);
/// A count in the metadata. Error format when it is absent, no integer or negative.
int64_t counter_of(const io::SafetensorsFile& file, const std::string& key);

/// Error invalid_argument, which names both values, when a file's and the run's setting differ.
void expect_same_setting(const std::string& what, const std::string& file, const std::string& run);

}  // namespace vkflux
