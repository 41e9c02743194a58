// Tensor: a small value handle on device memory. No gradient fields: gradients live in Grads (tape.h).
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "autograd/half.h"
#include "vk/device.h"

namespace vkflux {

enum class DType : uint8_t {
  f32,
  f16,
  bf16,
  i32,
  u8,
  f8_e4m3,
  f8_e5m2,
  q4_0,
  q4_1,
  q5_0,
  q5_1,
  q8_0,
  q2_k,
  q3_k,
  q4_k,
  q5_k,
  q6_k
};
/// From f8_e4m3 on: storage of frozen weight matrices, encoded row by row (autograd/packed.h).
bool is_packed(DType t);
/// Bytes of an element; Error internal for packed types.
size_t size_of(DType t);
std::string_view name(DType t);

/// Up to six dimensions, outermost first.
class Shape {
 public:
  static constexpr int kMaxRank = 6;
  Shape() = default;
  Shape(std::initializer_list<int64_t> dims) : Shape(std::span<const int64_t>(dims.begin(), dims.size())) {}
  explicit Shape(std::span<const int64_t> dims);

  int rank() const { return rank_; }
  /// Negative indices count from the end.
  int64_t operator[](int i) const { return dims_[static_cast<size_t>(i < 0 ? i + rank_ : i)]; }
  int64_t& operator[](int i) { return dims_[static_cast<size_t>(i < 0 ? i + rank_ : i)]; }
  const int64_t* begin() const { return dims_.data(); }
  const int64_t* end() const { return dims_.data() + rank_; }
  int64_t numel() const;
  void push_back(int64_t d);
  bool operator==(const Shape& o) const;
  std::string str() const;  // "[2, 3]"

 private:
  std::array<int64_t, kMaxRank> dims_{};
  int rank_ = 0;
};

class Tensor {
 public:
  Tensor() = default;

  /// Uninitialised. The buffer has room for 15 bytes behind the last element, so vector kernels need no tail
  /// code.
  static Tensor empty(Device& device, Shape shape, DType dtype = DType::f32,
                      MemoryClass cls = MemoryClass::activations);
  static Tensor zeros(Device& device, Shape shape, DType dtype = DType::f32,
                      MemoryClass cls = MemoryClass::activations);
  static Tensor full(Device& device, Shape shape, float value);
  static Tensor from(Device& device, std::span<const float> values, Shape shape, DType dtype = DType::f32,
                     MemoryClass cls = MemoryClass::activations);
  static Tensor from(Device& device, std::span<const int32_t> values, Shape shape);
  static Tensor from(Device& device, std::span<const uint8_t> values, Shape shape);
  static Tensor from_bytes(Device& device, std::span<const std::byte> bytes, Shape shape, DType dtype,
                           MemoryClass cls = MemoryClass::activations);

  /// The same memory for equal values on a device (Device::constant): read only.
  static Tensor constant(Device& device, std::span<const float> values, Shape shape);

  /// A tensor of `shape` over memory that somebody else made; the range holds it and starts at an element, or
  /// with the buffer when dtype is packed.
  static Tensor over(Device& device, const BufferRange& memory, Shape shape, DType dtype);

  bool defined() const { return buffer_ != nullptr; }
  explicit operator bool() const { return defined(); }
  Device& device() const { return *device_; }
  DType dtype() const { return dtype_; }
  const Shape& shape() const { return shape_; }
  int rank() const { return shape_.rank(); }
  int64_t dim(int i) const { return shape_[i]; }
  int64_t numel() const { return shape_.numel(); }
  const Shape& strides() const { return strides_; }  // in elements
  int64_t offset() const { return offset_; }         // of the first element in the buffer, in elements
  uint64_t bytes() const;
  /// Names this value on the tape; copies of the handle share it, views and results have their own.
  uint64_t id() const { return id_; }

  bool is_contiguous() const;
  /// Contiguous, and starts where the device can bind a buffer: what run() needs.
  bool is_bindable() const;
  BufferRange range() const;
  Binding binding() const;  // the same range, without owning it

  // Untaped views (op::reshape, op::narrow and op::permute are the taped ones). Of a packed tensor only whole
  // rows: slice() of dimension 0.
  Tensor view(Shape shape) const;  // contiguous only
  Tensor slice(int dim, int64_t start, int64_t length) const;
  Tensor with_strides(Shape shape, Shape strides) const;  // same first element
  /// The same memory under a new id.
  Tensor alias() const;
  /// The same id, shape and device without the memory: what a backward closure captures of an input whose
  /// values it doesn't read.
  Tensor key() const;
  /// A one-dimensional bindable tensor over this view's memory, whatever its strides; *lead is the number of
  /// elements in it before the view's first one. For kernels that take strides as arguments. Of a packed
  /// tensor: its bytes, as u8.
  Tensor covering(int64_t* lead) const;

  // Host transfers; these wait for the device.
  std::vector<float> to_host() const;  // f32, f16, bf16 with any strides; packed
  std::vector<int32_t> to_host_i32() const;
  std::vector<uint8_t> to_host_bytes() const;                // contiguous raw bytes
  float item() const;                                        // one element
  void copy_from_host(std::span<const float> values) const;  // f32, contiguous
  void copy_from_host(std::span<const int32_t> values) const;
  void fill_zero() const;  // contiguous

 private:
  uint64_t byte_offset() const;
  Device* device_ = nullptr;
  BufferPtr buffer_;
  DType dtype_ = DType::f32;
  Shape shape_, strides_;
  int64_t offset_ = 0;
  uint64_t id_ = 0;
};

}  // namespace vkflux
