#include "autograd/tensor.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstring>

#include "autograd/ops.h"
#include "autograd/packed.h"
#include "vk/error.h"

namespace vkflux {
namespace {

uint64_t next_id() {
  static std::atomic<uint64_t> counter{1};
  return counter.fetch_add(1, std::memory_order_relaxed);
}

Shape contiguous_strides(const Shape& shape) {
  Shape s = shape;
  int64_t step = 1;
  for (int i = shape.rank() - 1; i >= 0; --i) {
    s[i] = step;
    step *= shape[i];
  }
  return s;
}

// Bytes of `shape` stored densely.
uint64_t dense_bytes(const Shape& shape, DType dtype) {
  if (!is_packed(dtype)) return static_cast<uint64_t>(shape.numel()) * size_of(dtype);
  return static_cast<uint64_t>(shape[0]) * row_bytes(dtype, shape[1]);
}

}  // namespace

size_t size_of(DType t) {
  switch (t) {
    case DType::f32:
    case DType::i32:
      return 4;
    case DType::f16:
    case DType::bf16:
      return 2;
    case DType::u8:
      return 1;
    default:
      break;
  }
  throw Error(ErrorCode::internal, fmt::format("{} has no size per element", name(t)));
}

std::string_view name(DType t) {
  constexpr std::string_view names[] = {"f32",     "f16",  "bf16", "i32",  "u8",   "f8_e4m3",
                                        "f8_e5m2", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0",
                                        "q2_k",    "q3_k", "q4_k", "q5_k", "q6_k"};
  return names[static_cast<size_t>(t)];
}

Shape::Shape(std::span<const int64_t> dims) {
  if (dims.size() > kMaxRank)
    throw Error(ErrorCode::invalid_argument, fmt::format("rank {} is over {}", dims.size(), kMaxRank));
  for (int64_t d : dims) push_back(d);
}

void Shape::push_back(int64_t d) {
  if (rank_ == kMaxRank)
    throw Error(ErrorCode::invalid_argument, fmt::format("a tensor has at most {} dimensions", kMaxRank));
  if (d < 0) throw Error(ErrorCode::invalid_argument, fmt::format("negative dimension {}", d));
  dims_[static_cast<size_t>(rank_++)] = d;
}

int64_t Shape::numel() const {
  int64_t n = 1;
  for (int64_t d : *this) {
    if (__builtin_mul_overflow(n, d, &n))
      throw Error(ErrorCode::invalid_argument, "tensor size overflows: " + str());
  }
  return n;
}

bool Shape::operator==(const Shape& o) const {
  return std::equal(begin(), end(), o.begin(), o.end());
}

std::string Shape::str() const {
  std::string out = "[";
  for (int i = 0; i < rank_; ++i) out += (i ? ", " : "") + std::to_string((*this)[i]);
  return out + "]";
}

Tensor Tensor::empty(Device& device, Shape shape, DType dtype, MemoryClass cls) {
  if (is_packed(dtype)) check_packed(dtype, shape);
  Tensor t;
  t.device_ = &device;
  t.dtype_ = dtype;
  t.shape_ = shape;
  t.strides_ = contiguous_strides(shape);
  t.buffer_ = device.pool().allocate(dense_bytes(shape, dtype), cls);
  t.id_ = next_id();
  return t;
}

Tensor Tensor::zeros(Device& device, Shape shape, DType dtype, MemoryClass cls) {
  Tensor t = empty(device, shape, dtype, cls);
  t.fill_zero();
  return t;
}

Tensor Tensor::full(Device& device, Shape shape, float value) {
  Tensor t = empty(device, shape);
  if (t.numel()) device.stream().fill(t.range(), std::bit_cast<uint32_t>(value));
  return t;
}

Tensor Tensor::from_bytes(Device& device, std::span<const std::byte> bytes, Shape shape, DType dtype,
                          MemoryClass cls) {
  // What came from the host may outlive the work that asked for it (vk/recording.h).
  const RegionScope common(device.pool(), 0);
  Tensor t = empty(device, shape, dtype, cls);
  if (bytes.size() != t.bytes()) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("{} bytes given for a {} tensor {}", bytes.size(), name(dtype), shape.str()));
  }
  if (!bytes.empty()) device.stream().upload(t.range(), bytes);
  return t;
}

Tensor Tensor::from(Device& device, std::span<const float> values, Shape shape, DType dtype,
                    MemoryClass cls) {
  if (dtype == DType::f32) return from_bytes(device, std::as_bytes(values), shape, dtype, cls);
  if (dtype != DType::f16 && dtype != DType::bf16) {
    throw Error(ErrorCode::invalid_argument, fmt::format("floats can't become {}{}", name(dtype),
                                                         is_packed(dtype) ? "; use op::quantize" : ""));
  }
  std::vector<uint16_t> half(values.size());
  std::transform(values.begin(), values.end(), half.begin(), dtype == DType::f16 ? &to_f16 : &to_bf16);
  return from_bytes(device, std::as_bytes(std::span<const uint16_t>(half)), shape, dtype, cls);
}

Tensor Tensor::from(Device& device, std::span<const int32_t> values, Shape shape) {
  return from_bytes(device, std::as_bytes(values), shape, DType::i32);
}

Tensor Tensor::from(Device& device, std::span<const uint8_t> values, Shape shape) {
  return from_bytes(device, std::as_bytes(values), shape, DType::u8);
}

uint64_t Tensor::bytes() const {
  return dense_bytes(shape_, dtype_);
}

uint64_t Tensor::byte_offset() const {
  if (!is_packed(dtype_)) return static_cast<uint64_t>(offset_) * size_of(dtype_);
  return offset_ == 0 ? 0 : static_cast<uint64_t>(offset_ / shape_[1]) * row_bytes(dtype_, shape_[1]);
}

Tensor Tensor::constant(Device& device, std::span<const float> values, Shape shape) {
  Tensor t;
  t.device_ = &device;
  t.shape_ = shape;
  t.strides_ = contiguous_strides(shape);
  if (static_cast<int64_t>(values.size()) != shape.numel()) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("{} values given for a constant {}", values.size(), shape.str()));
  }
  t.buffer_ = device.constant(std::as_bytes(values));
  t.id_ = next_id();
  return t;
}

bool Tensor::is_contiguous() const {
  int64_t step = 1;
  for (int i = rank() - 1; i >= 0; --i) {
    if (shape_[i] != 1 && strides_[i] != step) return false;
    step *= shape_[i];
  }
  return true;
}

bool Tensor::is_bindable() const {
  return is_contiguous() && byte_offset() % device_->caps().buffer_alignment == 0;
}

Tensor Tensor::over(Device& device, const BufferRange& memory, Shape shape, DType dtype) {
  Tensor t;
  t.device_ = &device;
  t.buffer_ = memory.buffer;
  t.dtype_ = dtype;
  t.shape_ = shape;
  t.strides_ = contiguous_strides(shape);
  t.offset_ = is_packed(dtype) ? 0 : static_cast<int64_t>(memory.offset / size_of(dtype));
  t.id_ = next_id();
  return t;
}

Binding Tensor::binding() const {
  if (is_packed(dtype_)) return {buffer_.get(), byte_offset(), bytes()};
  int64_t last = 0;
  bool empty = false;
  for (int i = 0; i < rank(); ++i) {
    last += (shape_[i] - 1) * strides_[i];
    empty = empty || shape_[i] == 0;
  }
  const uint64_t count = empty ? 0 : static_cast<uint64_t>(last + 1);
  return {buffer_.get(), byte_offset(), count * size_of(dtype_)};
}

BufferRange Tensor::range() const {
  const Binding b = binding();
  return {buffer_, b.offset, b.size};
}

Tensor Tensor::view(Shape shape) const {
  if (!is_contiguous() || shape.numel() != numel()) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("a tensor {} can't be viewed as {}", shape_.str(), shape.str()));
  }
  return with_strides(shape, contiguous_strides(shape));
}

Tensor Tensor::with_strides(Shape shape, Shape strides) const {
  if (is_packed(dtype_) && (shape != shape_ || strides != strides_)) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("a {} tensor {} can't be viewed as {}: its rows are encoded whole", name(dtype_),
                            shape_.str(), shape.str()));
  }
  Tensor t = *this;
  t.shape_ = shape;
  t.strides_ = strides;
  t.id_ = next_id();
  return t;
}

Tensor Tensor::slice(int dim, int64_t start, int64_t length) const {
  if (dim < 0) dim += rank();
  if (dim < 0 || dim >= rank() || start < 0 || length < 0 || start + length > shape_[dim]) {
    throw Error(ErrorCode::invalid_argument, fmt::format("slice [{}, {}) of dimension {} is outside {}",
                                                         start, start + length, dim, shape_.str()));
  }
  if (is_packed(dtype_) && dim != 0 && length != shape_[dim]) {
    throw Error(
        ErrorCode::invalid_argument,
        fmt::format("a {} tensor can only be cut between rows: its rows are encoded whole", name(dtype_)));
  }
  Tensor t = *this;
  t.shape_[dim] = length;
  t.offset_ += start * strides_[dim];
  t.id_ = next_id();
  return t;
}

Tensor Tensor::alias() const {
  Tensor t = *this;
  t.id_ = next_id();
  return t;
}

Tensor Tensor::key() const {
  Tensor t = *this;
  t.buffer_ = nullptr;
  return t;
}

Tensor Tensor::covering(int64_t* lead) const {
  if (is_packed(dtype_)) {
    const uint64_t at = byte_offset(), before = at % device_->caps().buffer_alignment;
    *lead = static_cast<int64_t>(before);
    Tensor t = *this;
    t.dtype_ = DType::u8;
    t.offset_ = static_cast<int64_t>(at - before);
    t.shape_ = Shape{static_cast<int64_t>(before + bytes())};
    t.strides_ = Shape{1};
    t.id_ = next_id();
    return t;
  }
  const int64_t step =
      std::max<int64_t>(1, static_cast<int64_t>(device_->caps().buffer_alignment / size_of(dtype_)));
  *lead = offset_ % step;
  Tensor t = *this;
  t.offset_ = offset_ - *lead;
  t.shape_ = Shape{*lead + static_cast<int64_t>(range().size / size_of(dtype_))};
  t.strides_ = Shape{1};
  t.id_ = next_id();
  return t;
}

std::vector<uint8_t> Tensor::to_host_bytes() const {
  const Tensor c = is_contiguous() ? *this : op::contiguous(*this);
  std::vector<uint8_t> out(c.bytes());
  if (!out.empty()) device_->stream().download(std::as_writable_bytes(std::span(out)), c.range());
  return out;
}

std::vector<float> Tensor::to_host() const {
  const std::vector<uint8_t> raw = to_host_bytes();
  std::vector<float> out(static_cast<size_t>(numel()));
  if (dtype_ == DType::f32) {
    if (!raw.empty()) std::memcpy(out.data(), raw.data(), raw.size());
  } else if (dtype_ == DType::f16 || dtype_ == DType::bf16) {
    for (size_t i = 0; i < out.size(); ++i) {
      uint16_t h;
      std::memcpy(&h, raw.data() + 2 * i, 2);
      out[i] = dtype_ == DType::f16 ? from_f16(h) : from_bf16(h);
    }
  } else if (is_packed(dtype_)) {
    out = decode_rows(dtype_, std::as_bytes(std::span(raw)), shape_);
  } else {
    throw Error(ErrorCode::invalid_argument, fmt::format("a {} tensor has no float values", name(dtype_)));
  }
  return out;
}

std::vector<int32_t> Tensor::to_host_i32() const {
  if (dtype_ != DType::i32) throw Error(ErrorCode::invalid_argument, "an i32 tensor is needed");
  const std::vector<uint8_t> raw = to_host_bytes();
  std::vector<int32_t> out(static_cast<size_t>(numel()));
  if (!raw.empty()) std::memcpy(out.data(), raw.data(), raw.size());
  return out;
}

float Tensor::item() const {
  if (numel() != 1)
    throw Error(ErrorCode::invalid_argument, "item() needs one element, this has shape " + shape_.str());
  return to_host()[0];
}

void Tensor::copy_from_host(std::span<const float> values) const {
  if (dtype_ != DType::f32 || static_cast<int64_t>(values.size()) != numel() || !is_contiguous()) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("{} floats given for {} {}", values.size(), name(dtype_), shape_.str()));
  }
  if (!values.empty()) device_->stream().upload(range(), std::as_bytes(values));
}

void Tensor::copy_from_host(std::span<const int32_t> values) const {
  if (dtype_ != DType::i32 || static_cast<int64_t>(values.size()) != numel() || !is_contiguous()) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("{} ints given for {} {}", values.size(), name(dtype_), shape_.str()));
  }
  if (!values.empty()) device_->stream().upload(range(), std::as_bytes(values));
}

void Tensor::fill_zero() const {
  if (!is_contiguous()) throw Error(ErrorCode::invalid_argument, "fill_zero needs a contiguous tensor");
  if (numel()) device_->stream().fill(range(), 0);
}

}  // namespace vkflux
