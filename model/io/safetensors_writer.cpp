#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "autograd/tensor.h"
#include "model/io/json.h"
#include "model/io/safetensors.h"
#include "model/io/tensor_writer.h"

namespace vkflux::io {
namespace {

[[noreturn]] void refuse(const std::string& path, const std::string& what) {
  throw Error(ErrorCode::invalid_argument, fmt::format("{}: can't write {}", path, what));
}

void check(const std::string& path, const OutTensor& t) {
  if (t.name == "__metadata__") refuse(path, "a tensor called __metadata__: the format reserves this name");
  if (block_values(t.dtype) > 1)
    refuse(path, fmt::format("tensor {}: safetensors files have no type {}; GGUF files have", shown(t.name),
                             name(t.dtype)));
  if (t.shape.size() > 8)
    refuse(path,
           fmt::format("tensor {}: it has {} dimensions, 8 is the limit", shown(t.name), t.shape.size()));
}

// The parser would refuse it, so the writer does too.
std::string quoted(const std::string& path, const std::string& text) {
  if (valid_utf8(text) != text) refuse(path, fmt::format("{}: it isn't UTF-8", shown(text)));
  return json_text(Json(text));
}

std::string header_of(const std::string& path, const std::vector<OutTensor>& order,
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
  for (const OutTensor& t : order) {
    if (text.size() > 1) text += ',';
    const uint64_t end = at + bytes_of(path, t);
    text += fmt::format("{}:{{\"dtype\":\"{}\",\"shape\":[{}],\"data_offsets\":[{},{}]}}",
                        quoted(path, t.name), name(t.dtype), fmt::join(t.shape, ","), at, end);
    at = end;
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

uint64_t bytes_of(const std::string& path, const OutTensor& t) {
  uint64_t numel = 1, bytes = 0;
  bool fits = true;
  for (const int64_t d : t.shape)
    fits = fits && d >= 0 && !__builtin_mul_overflow(numel, static_cast<uint64_t>(d), &numel);
  const auto block = static_cast<uint64_t>(block_values(t.dtype));
  const uint64_t row = t.shape.empty() ? 1 : static_cast<uint64_t>(t.shape.back());
  fits = fits && row % block == 0 && !__builtin_mul_overflow(numel / block, size_of(t.dtype), &bytes);
  if (!fits)
    refuse(path, fmt::format("tensor {}: the shape [{}] doesn't fit {}", shown(t.name),
                             fmt::join(t.shape, ", "), name(t.dtype)));
  return bytes;
}

void write_data(const std::string& path, const OutTensor& t, const Sink& sink) {
  const uint64_t wanted = bytes_of(path, t);
  uint64_t written = 0;
  t.data([&](std::span<const std::byte> piece) {
    written += piece.size();
    sink(piece);
  });
  if (written != wanted)
    throw Error(ErrorCode::internal, fmt::format("{}: {} bytes written for tensor {}, {} are its size", path,
                                                 written, t.name, wanted));
}

void write_safetensors(const std::string& path, std::vector<OutTensor> tensors,
                       const std::map<std::string, std::string>& metadata) {
  for (const OutTensor& t : tensors) check(path, t);
  std::sort(tensors.begin(), tensors.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  const auto twice = std::adjacent_find(tensors.begin(), tensors.end(),
                                        [](const auto& a, const auto& b) { return a.name == b.name; });
  if (twice != tensors.end()) refuse(path, fmt::format("tensor {} twice", shown(twice->name)));
  const std::string text = header_of(path, tensors, metadata);
  const uint64_t n = text.size();
  atomic_write(path, [&](const Sink& sink) {
    sink(std::as_bytes(std::span(&n, 1)));
    sink(std::as_bytes(std::span(text.data(), text.size())));
    for (const OutTensor& t : tensors) write_data(path, t, sink);
  });
}

void write_safetensors(const std::string& path, const std::vector<TensorData>& tensors,
                       const std::map<std::string, std::string>& metadata) {
  std::vector<OutTensor> out;
  for (const TensorData& t : tensors) {
    out.push_back({t.name, t.dtype, t.shape, [&t](const Sink& sink) { sink(t.bytes); }});
    if (bytes_of(path, out.back()) != t.bytes.size())
      refuse(path, fmt::format("tensor {}: {} bytes don't fit the shape [{}] in {}", shown(t.name),
                               t.bytes.size(), fmt::join(t.shape, ", "), name(t.dtype)));
  }
  write_safetensors(path, std::move(out), metadata);
}

}  // namespace vkflux::io
