#include "model/load.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "autograd/ops.h"
#include "autograd/packed.h"
#include "vk/error.h"

namespace vkflux {
namespace {

std::vector<int64_t> dims(const Shape& s) {
  return {s.begin(), s.end()};
}

}  // namespace

std::map<std::string, Shape> shapes_of(const io::NamedTensors& file) {
  const ErrorContext context(file.path());
  std::map<std::string, Shape> out;
  for (const std::string& name : file.names()) {
    const ErrorContext tensor(name);
    const std::vector<int64_t>& shape = file.shape(name);
    int64_t numel = 1;
    for (const int64_t d : shape) {
      if (__builtin_mul_overflow(numel, d, &numel)) throw Error(ErrorCode::format, "its size overflows");
    }
    if (shape.size() > Shape::kMaxRank) {
      throw Error(ErrorCode::format,
                  fmt::format("it has {} dimensions, at most {} are used", shape.size(), Shape::kMaxRank));
    }
    out.emplace(name, Shape(std::span<const int64_t>(shape)));
  }
  return out;
}

uint64_t stored_bytes(DType dtype, const Shape& shape) {
  return is_packed(dtype) ? static_cast<uint64_t>(shape[0]) * row_bytes(dtype, shape[1])
                          : static_cast<uint64_t>(shape.numel()) * size_of(dtype);
}

bool reads_directly(const io::NamedTensors& file, const Param& p, DType dtype) {
  return !is_packed(dtype) || file.packs(p.name, dtype);
}

void read_weight(const io::NamedTensors& file, const Param& p, DType dtype, uint64_t at,
                 std::span<std::byte> out) {
  if (!is_packed(dtype)) return file.read(p.name, dtype, at / size_of(dtype), out);
  const uint64_t row = row_bytes(dtype, p.shape[1]);
  const auto put = [&](uint64_t first, std::span<std::byte> rows) {
    file.read_packed(p.name, dtype, static_cast<int64_t>(first), rows);
  };
  // Whole rows go where they belong, parts of rows by way of a buffer.
  std::vector<std::byte> part;
  while (!out.empty()) {
    const uint64_t inside = at % row;
    uint64_t bytes = out.size() / row * row;
    if (inside == 0 && bytes > 0) {
      put(at / row, out.first(bytes));
    } else {
      part.resize(row);
      put(at / row, part);
      bytes = std::min<uint64_t>(row - inside, out.size());
      std::copy_n(part.begin() + static_cast<ptrdiff_t>(inside), bytes, out.begin());
    }
    at += bytes;
    out = out.subspan(bytes);
  }
}

// Straight from the file to where the device wants the values.
Tensor load_tensor(const io::NamedTensors& file, const Param& p, Device& device, DType dtype,
                   MemoryClass cls) {
  if (!reads_directly(file, p, dtype))
    return op::quantize(load_tensor(file, p, device, DType::f32, MemoryClass::scratch), dtype);
  const Tensor t = Tensor::empty(device, p.shape, dtype, cls);
  if (t.bytes() == 0) return t;
  device.stream().upload(
      t.range(), [&](uint64_t at, std::span<std::byte> piece) { read_weight(file, p, dtype, at, piece); });
  return t;
}

void check(const std::vector<Param>& params, const io::NamedTensors& file) {
  io::NamedShapes expected;
  for (const Param& p : params) expected.emplace_back(p.name, dims(p.shape));
  file.check(expected);
}

void load(const std::vector<Param>& params, const io::NamedTensors& file, Device& device, WantedType matrices,
          const StorageRules& rules) {
  check(params, file);
  load_checked(params, file, device, matrices, rules);
}

void load_checked(const std::vector<Param>& params, const io::NamedTensors& file, Device& device,
                  WantedType matrices, const StorageRules& rules) {
  const ErrorContext context(file.path());
  for (const Param& p : params) {
    const ErrorContext tensor(p.name);
    const DType dtype = storage_of(rules, p, matrices, file.dtype(p.name));
    *p.tensor = load_tensor(file, p, device, dtype);
    // One matrix at a time is on the device in f32, too.
    if (!reads_directly(file, p, dtype)) device.stream().sync();
  }
}

void save(const std::vector<Param>& params, const std::string& path, const io::NameTable& table,
          io::FileDType matrices, const RowSplit& rows, std::vector<io::TensorData> more) {
  std::vector<io::TensorData> out = std::move(more);
  for (const Param& p : params) {
    const auto dtype = p.shape.rank() >= 2 ? matrices : io::FileDType::f32;
    auto parts = io::to_foreign(p.name, dims(p.shape), p.tensor->to_host(), table, dtype,
                                rows ? rows(p) : std::vector<int64_t>{});
    for (io::TensorData& d : parts) out.push_back(std::move(d));
  }
  io::write_safetensors(path, out, {{"format", "pt"}});
}

}  // namespace vkflux
