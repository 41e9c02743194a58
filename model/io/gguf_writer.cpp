#include <fmt/format.h>

#include <array>
#include <set>

#include "model/io/gguf.h"
#include "model/io/tensor_writer.h"
#include "vk/error.h"

namespace vkflux::io {
namespace {

constexpr uint64_t kAlignment = 32;
constexpr size_t kMostName = 63, kMostRank = 4;

[[noreturn]] void refuse(const std::string& path, const std::string& what) {
  throw Error(ErrorCode::invalid_argument, fmt::format("{}: can't write {}", path, what));
}

template <class T>
void put(std::string& out, T v) {
  out.append(reinterpret_cast<const char*>(&v), sizeof(T));
}
void put_text(std::string& out, const std::string& s) {
  put<uint64_t>(out, s.size());
  out += s;
}
void put_value(std::string& out, const GgufValue& value) {
  if (const auto* text = std::get_if<std::string>(&value)) {
    put<uint32_t>(out, 8);
    put_text(out, *text);
  } else if (const auto* number = std::get_if<uint32_t>(&value)) {
    put<uint32_t>(out, 4);
    put(out, *number);
  } else if (const auto* real = std::get_if<float>(&value)) {
    put<uint32_t>(out, 6);
    put(out, *real);
  } else {
    put<uint32_t>(out, 7);
    put<uint8_t>(out, std::get<bool>(value));
  }
}

uint64_t padded(uint64_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

}  // namespace

void write_gguf(const std::string& path, const std::vector<OutTensor>& tensors,
                const std::vector<std::pair<std::string, GgufValue>>& values) {
  std::string head = "GGUF";
  put<uint32_t>(head, 3);
  put<uint64_t>(head, tensors.size());
  put<uint64_t>(head, values.size());
  for (const auto& [key, value] : values) {
    put_text(head, key);
    put_value(head, value);
  }
  std::set<std::string> names;
  uint64_t at = 0;
  for (const OutTensor& t : tensors) {
    const auto id = gguf_type(t.dtype);
    if (!id) refuse(path, fmt::format("tensor {}: GGUF has no type {}", shown(t.name), name(t.dtype)));
    if (!names.insert(t.name).second) refuse(path, fmt::format("tensor {} twice", shown(t.name)));
    if (t.name.size() > kMostName)
      refuse(path, fmt::format("tensor {}: its name has {} bytes, {} is what readers of GGUF take",
                               shown(t.name), t.name.size(), kMostName));
    if (t.shape.size() > kMostRank)
      refuse(path, fmt::format("tensor {}: it has {} dimensions, GGUF has at most {}", shown(t.name),
                               t.shape.size(), kMostRank));
    put_text(head, t.name);
    put(head, static_cast<uint32_t>(t.shape.size()));
    for (auto d = t.shape.rbegin(); d != t.shape.rend(); ++d) put(head, static_cast<uint64_t>(*d));
    put(head, *id);
    put(head, at);
    at += padded(bytes_of(path, t));
  }
  head.resize(padded(head.size()), '\0');
  const std::array<std::byte, kAlignment> zeros{};
  atomic_write(path, [&](const Sink& sink) {
    sink(std::as_bytes(std::span(head)));
    for (const OutTensor& t : tensors) {
      const uint64_t bytes = bytes_of(path, t);
      write_data(path, t, sink);
      sink(std::span(zeros).first(padded(bytes) - bytes));
    }
  });
}

}  // namespace vkflux::io
