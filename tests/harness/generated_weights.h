// Weights that are too large to be kept as a file: a function of seed, part, tensor and place, as
// tests/data/make_full_width.py makes them for the reference implementations.
#pragma once

#include <cstdint>
#include <string>

#include "model/io/json.h"
#include "model/io/tensor_source.h"

namespace vkflux::test {

/// The tensors of a part by name: matrices in BF16, or of four significant bits in F8_E4M3; vectors in F32.
class GeneratedWeights final : public io::TensorSource {
 public:
  /// shapes: {"name": [sizes]}.
  GeneratedWeights(uint64_t seed, const std::string& part, const io::Json& shapes, int significant = 8);
  /// The sum of all values' bits as f32, modulo 2^64.
  uint64_t sum_of_bits() const;

 private:
  void read_range(const io::TensorInfo& tensor, uint64_t offset, std::span<std::byte> out) const override;

  uint64_t seed_;
  int significant_;
};

}  // namespace vkflux::test
