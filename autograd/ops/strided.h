// Index arithmetic of kernels that walk strided tensors (shaders/common/strided.glsl).
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <initializer_list>
#include <vector>

#include "autograd/ops/binding.h"
#include "autograd/run.h"
#include "autograd/tensor.h"

namespace vkflux::op {

/// A loop over `shape` with one stride per operand, simplified: dimensions of size 1 are dropped and
/// neighbours that every operand walks as one are merged. Innermost dimension first; rank >= 1.
struct StridedLoop {
  int rank = 1;
  std::array<int64_t, Shape::kMaxRank> shape{};
  std::vector<std::array<int64_t, Shape::kMaxRank>> strides;  // [operand][dimension], in elements
};
StridedLoop strided_loop(const Shape& shape, const std::vector<Shape>& strides);

/// How an operand's four consecutive elements along the innermost dimension are read; the values are those in
/// shaders/common/strided.glsl.
enum class Inner : uint32_t {
  splat = 0,   // one element for all
  vector = 1,  // one aligned vec4
  step = 2     // four elements at the innermost stride
};
Inner inner_mode(const StridedLoop& loop, size_t operand, int64_t lead);

/// True when groups of four consecutive results never cross a row of the innermost dimension, nor (by more
/// than padding) the end.
inline bool whole_vectors(const StridedLoop& loop, std::initializer_list<Inner> modes) {
  bool step = false;
  for (Inner m : modes) step = step || m == Inner::step;
  return loop.shape[0] % 4 == 0 || (loop.rank == 1 && !step);
}

/// Division by each of the innermost dimensions as a multiplication: n / d = (high32(n * magic) + n) >> shift
/// for n < 2^31. unit: the innermost dimension counts groups of so many elements.
struct Divisors {
  std::array<uint32_t, 5> size{}, magic{};
  uint32_t shifts = 0;  // five bits each
};
Divisors divisors(const StridedLoop& loop, int64_t unit);

/// The strides that `x` has when broadcast to `shape` (numpy's rules): 0 where it repeats.
Shape broadcast_strides(const Tensor& x, const Shape& shape);
/// numpy's broadcast of two shapes; Error invalid_argument when they don't fit.
Shape broadcast_shape(const char* op, const Tensor& a, const Tensor& b);

/// Sums the dimensions of x along which `shape` was broadcast: the backward of broadcasting. Not taped.
Tensor sum_to(const Tensor& x, const Shape& shape);

template <class Args>
void set_divisors(Args& args, const Divisors& d) {
  for (size_t i = 0; i < 5; ++i) {
    args.size[i] = d.size[i];
    args.magic[i] = d.magic[i];
  }
  args.shifts = d.shifts;
}
inline void set_strides(uint32_t (&out)[6], const std::array<int64_t, Shape::kMaxRank>& strides,
                        int64_t unit) {
  for (size_t i = 0; i < 6; ++i) out[i] = u32(strides[i] * (i == 0 ? unit : 1));
}

/// dst = src, both with any strides, of equal shapes and 4-byte elements (movement.cpp). Not taped.
void copy_strided(const Tensor& dst, const Tensor& src);

/// Calls f(first, count) for pieces of a flat range of `count` elements of `bytes` bytes each that the device
/// can bind, as a storage or a texel buffer; `first` is a multiple of 64 elements.
template <class F>
void for_pieces(Device& device, int64_t count, int64_t bytes, F f) {
  const int64_t limit = max_binding_bytes(device.caps()) / bytes / 1024 * 1024;
  for (int64_t first = 0; first < count; first += limit) f(first, std::min(limit, count - first));
}

}  // namespace vkflux::op
