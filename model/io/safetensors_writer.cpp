#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "autograd/tensor.h"
#include "model/io/json.h"
#include "model/io/safetensors.h"

namespace vkflux::io {
namespace {

[[noreturn]] void refuse(const std::string& path, const std::string& what) {
  throw Error(ErrorCode::invalid_argument, fmt::format("{}: can't write {}", path, what));
}

void check(const std::string& path, const TensorData& t) {
  if (t.name == "__metadata__") refuse(path, "a tensor called __metadata__: the format reserves this name");
  uint64_t bytes = size_of(t.dtype);
  bool fits = t.shape.size() <= 8;
  for (const int64_t d : t.shape) {
    fits = fits && d >= 0 && !__builtin_mul_overflow(bytes, static_cast<uint64_t>(d), &bytes);
  }
  if (!fits || bytes != t.bytes.size()) {
    refuse(path, fmt::format("tensor {}: {} bytes don't fit the shape [{}] in {}", shown(t.name),
                             t.bytes.size(), fmt::join(t.shape, ", "), name(t.dtype)));
  }
}

// The parser would refuse it, so the writer does too.
std::string quoted(const std::string& path, const std::string& text) {
  if (valid_utf8(text) != text) refuse(path, fmt::format("{}: it isn't UTF-8", shown(text)));
  return json_text(Json(text));
}

std::string header_of(const std::string& path, const std::vector<const TensorData*>& order,
                      const std::map<std::string, std::string>& metadata) {
  std::string text = "{";
  if (!metadata.empty()) {
    text += "\"__metadata__\":{";
    for (const auto& [key, value] : metadata) {
      if (text.back() != '{') text += ',';
      text += quoted(path, key) + ":" + quoted(path, value);
    }
    text += '}';
  }
  uint64_t at = 0;
  for (const TensorData* t : order) {
    if (text.size() > 1) text += ',';
    text +=
        fmt::format("{}:{{\"dtype\":\"{}\",\"shape\":[{}],\"data_offsets\":[{},{}]}}", quoted(path, t->name),
                    name(t->dtype), fmt::join(t->shape, ","), at, at + t->bytes.size());
    at += t->bytes.size();
  }
  text += '}';
  text.resize((text.size() + 7) / 8 * 8, ' ');
  return text;
}

}  // namespace

TensorData tensor_data(std::string name, std::vector<int64_t> shape, std::span<const float> values,
                       FileDType dtype) {
  if (dtype != FileDType::f32 && dtype != FileDType::f16 && dtype != FileDType::bf16) {
    throw Error(
        ErrorCode::invalid_argument,
        fmt::format("tensor {}: values are written as F32, F16 or BF16, not {}", name, io::name(dtype)));
  }
  TensorData t{std::move(name), dtype, std::move(shape), {}};
  t.bytes.resize(values.size() * size_of(dtype));
  if (dtype == FileDType::f32) {
    if (!values.empty()) std::memcpy(t.bytes.data(), values.data(), t.bytes.size());
    return t;
  }
  for (size_t i = 0; i < values.size(); ++i) {
    const uint16_t h = dtype == FileDType::f16 ? to_f16(values[i]) : to_bf16(values[i]);
    std::memcpy(t.bytes.data() + 2 * i, &h, 2);
  }
  return t;
}

void write_safetensors(const std::string& path, const std::vector<TensorData>& tensors,
                       const std::map<std::string, std::string>& metadata) {
  std::vector<const TensorData*> order;
  for (const TensorData& t : tensors) {
    check(path, t);
    order.push_back(&t);
  }
  std::sort(order.begin(), order.end(), [](const auto* a, const auto* b) { return a->name < b->name; });
  const auto twice = std::adjacent_find(order.begin(), order.end(),
                                        [](const auto* a, const auto* b) { return a->name == b->name; });
  if (twice != order.end()) refuse(path, fmt::format("tensor {} twice", shown((*twice)->name)));
  const std::string text = header_of(path, order, metadata);
  const uint64_t n = text.size();
  atomic_write(path, [&](const Sink& sink) {
    sink(std::as_bytes(std::span(&n, 1)));
    sink(std::as_bytes(std::span(text.data(), text.size())));
    for (const TensorData* t : order) sink(t->bytes);
  });
}

}  // namespace vkflux::io
