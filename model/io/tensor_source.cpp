#include "model/io/tensor_source.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <numeric>

#include "model/io/file.h"
#include "model/io/values.h"
#include "vk/error.h"

namespace vkflux::io {
namespace {

struct DTypeRow {
  FileDType dtype;
  std::string_view name;
  size_t size;
  int64_t block = 1;
};
constexpr std::array<DTypeRow, 25> kDTypes{
    {{FileDType::f64, "F64", 8},          {FileDType::f32, "F32", 4},
     {FileDType::f16, "F16", 2},          {FileDType::bf16, "BF16", 2},
     {FileDType::f8_e4m3, "F8_E4M3", 1},  {FileDType::f8_e5m2, "F8_E5M2", 1},
     {FileDType::q4_0, "Q4_0", 18, 32},   {FileDType::q4_1, "Q4_1", 20, 32},
     {FileDType::q5_0, "Q5_0", 22, 32},   {FileDType::q5_1, "Q5_1", 24, 32},
     {FileDType::q8_0, "Q8_0", 34, 32},   {FileDType::q2_k, "Q2_K", 84, 256},
     {FileDType::q3_k, "Q3_K", 110, 256}, {FileDType::q4_k, "Q4_K", 144, 256},
     {FileDType::q5_k, "Q5_K", 176, 256}, {FileDType::q6_k, "Q6_K", 210, 256},
     {FileDType::i64, "I64", 8},          {FileDType::i32, "I32", 4},
     {FileDType::i16, "I16", 2},          {FileDType::i8, "I8", 1},
     {FileDType::u64, "U64", 8},          {FileDType::u32, "U32", 4},
     {FileDType::u16, "U16", 2},          {FileDType::u8, "U8", 1},
     {FileDType::boolean, "BOOL", 1}}};

const DTypeRow& row(FileDType t) {
  return *std::find_if(kDTypes.begin(), kDTypes.end(), [&](const auto& r) { return r.dtype == t; });
}

[[noreturn]] void bad(const std::string& path, const std::string& what) {
  throw Error(ErrorCode::format, fmt::format("{}: {}", path, what));
}

int64_t decode_int(FileDType t, const std::byte* p) {
  const auto as = [&]<class T>(T v) {
    std::memcpy(&v, p, sizeof(T));
    return static_cast<int64_t>(v);
  };
  switch (t) {
    case FileDType::i64:
      return as(int64_t{});
    case FileDType::i32:
      return as(int32_t{});
    case FileDType::i16:
      return as(int16_t{});
    case FileDType::i8:
      return as(int8_t{});
    case FileDType::u64:
      return as(uint64_t{});
    case FileDType::u32:
      return as(uint32_t{});
    case FileDType::u16:
      return as(uint16_t{});
    default:
      return as(uint8_t{});
  }
}

}  // namespace

size_t size_of(FileDType t) {
  return row(t).size;
}
int64_t block_values(FileDType t) {
  return row(t).block;
}
std::string_view name(FileDType t) {
  return row(t).name;
}
bool is_float(FileDType t) {
  return t < FileDType::i64;
}

int64_t TensorInfo::numel() const {
  return std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
}

std::vector<float> decode_f32(FileDType dtype, std::span<const std::byte> bytes) {
  std::vector<float> out(bytes.size() / size_of(dtype) * static_cast<size_t>(block_values(dtype)));
  convert(dtype, bytes, DType::f32, std::as_writable_bytes(std::span(out)));
  return out;
}

std::optional<FileDType> file_dtype(std::string_view name) {
  for (const DTypeRow& r : kDTypes) {
    if (r.name == name && r.block == 1) return r.dtype;
  }
  return std::nullopt;
}

const TensorInfo& TensorSource::info(const std::string& name) const {
  const auto it = tensors_.find(name);
  if (it != tensors_.end()) return it->second;
  std::vector<std::string> names;
  for (const auto& [k, v] : tensors_) names.push_back(k);
  bad(path_, fmt::format("tensor {} is missing{}", shown(name), nearest(name, names)));
}

void TensorSource::read(const TensorInfo& t, uint64_t offset, std::span<std::byte> out) const {
  if (offset > t.bytes() || out.size() > t.bytes() - offset)
    throw Error(ErrorCode::invalid_argument, fmt::format("{}: {} bytes from byte {} on are beyond tensor {}",
                                                         path_, out.size(), offset, shown(t.name)));
  read_range(t, offset, out);
}

std::vector<std::byte> TensorSource::read_bytes(const std::string& name) const {
  const TensorInfo& t = info(name);
  std::vector<std::byte> out(t.bytes());
  read(t, 0, out);
  return out;
}

std::vector<float> TensorSource::read_f32(const std::string& name) const {
  const TensorInfo& t = info(name);
  if (!is_float(t.dtype))
    bad(path_,
        fmt::format("tensor {} is {}, a floating-point one is needed", shown(name), io::name(t.dtype)));
  return decode_f32(t.dtype, read_bytes(name));
}

std::vector<int32_t> TensorSource::read_i32(const std::string& name) const {
  const TensorInfo& t = info(name);
  if (is_float(t.dtype))
    bad(path_, fmt::format("tensor {} is {}, an integer one is needed", shown(name), io::name(t.dtype)));
  const std::vector<std::byte> raw = read_bytes(name);
  std::vector<int32_t> out(raw.size() / size_of(t.dtype));
  for (size_t i = 0; i < out.size(); ++i) {
    const int64_t v = decode_int(t.dtype, raw.data() + i * size_of(t.dtype));
    if (v < INT32_MIN || v > INT32_MAX)
      bad(path_, fmt::format("tensor {} holds {}, which doesn't fit 32 bits", shown(name), v));
    out[i] = static_cast<int32_t>(v);
  }
  return out;
}

std::vector<double> TensorSource::read_f64(const std::string& name) const {
  const TensorInfo& t = info(name);
  const std::vector<std::byte> raw = read_bytes(name);
  std::vector<double> out(raw.size() / size_of(t.dtype));
  if (t.dtype == FileDType::f64) {
    std::memcpy(out.data(), raw.data(), raw.size());
  } else if (is_float(t.dtype)) {
    const std::vector<float> values = decode_f32(t.dtype, raw);
    std::copy(values.begin(), values.end(), out.begin());
  } else {
    for (size_t i = 0; i < out.size(); ++i)
      out[i] = static_cast<double>(decode_int(t.dtype, raw.data() + i * size_of(t.dtype)));
  }
  return out;
}

}  // namespace vkflux::io
