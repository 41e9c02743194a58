#include "model/load.h"

#include <fmt/format.h>

#include "autograd/ops.h"
#include "vk/error.h"

namespace vkflux {
namespace {

std::vector<int64_t> dims(const Shape& s) {
  return {s.begin(), s.end()};
}

// Straight from the file to where the device wants the values.
Tensor read(const io::NamedTensors& file, const Param& p, Device& device, DType dtype, MemoryClass cls) {
  const Tensor t = Tensor::empty(device, p.shape, dtype, cls);
  device.stream().upload(t.range(), [&](uint64_t at, std::span<std::byte> piece) {
    file.read(p.name, dtype, at / size_of(dtype), piece);
  });
  return t;
}

// f32 values to packed matrices, with a bounded number of bytes on the device in f32.
class Quantiser {
 public:
  explicit Quantiser(Device& device) : device_(device) {}

  Tensor operator()(const io::NamedTensors& file, const Param& p, DType dtype) {
    constexpr uint64_t kMostWaiting = uint64_t{256} << 20;
    const uint64_t bytes = static_cast<uint64_t>(p.shape.numel()) * size_of(DType::f32);
    if (waiting_ > 0 && waiting_ + bytes > kMostWaiting) {
      device_.stream().sync();
      waiting_ = 0;
    }
    waiting_ += bytes;
    return op::quantize(read(file, p, device_, DType::f32, MemoryClass::scratch), dtype);
  }

 private:
  Device& device_;
  uint64_t waiting_ = 0;  // bytes of f32 values that the device may still hold
};

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

void check(const std::vector<Param>& params, const io::NamedTensors& file) {
  io::NamedShapes expected;
  for (const Param& p : params) expected.emplace_back(p.name, dims(p.shape));
  file.check(expected);
}

void load(const std::vector<Param>& params, const io::NamedTensors& file, Device& device, DType matrices,
          const StorageRules& rules) {
  check(params, file);
  const ErrorContext context(file.path());
  Quantiser quantiser(device);
  for (const Param& p : params) {
    const ErrorContext tensor(p.name);
    const DType dtype = storage_of(rules, p, matrices, file.dtype(p.name));
    *p.tensor =
        is_packed(dtype) ? quantiser(file, p, dtype) : read(file, p, device, dtype, MemoryClass::weights);
  }
}

void save(const std::vector<Param>& params, const std::string& path, const io::NameTable& table,
          io::FileDType matrices, const RowSplit& rows) {
  std::vector<io::TensorData> out;
  for (const Param& p : params) {
    const auto dtype = p.shape.rank() >= 2 ? matrices : io::FileDType::f32;
    auto parts = io::to_foreign(p.name, dims(p.shape), p.tensor->to_host(), table, dtype,
                                rows ? rows(p) : std::vector<int64_t>{});
    for (io::TensorData& d : parts) out.push_back(std::move(d));
  }
  io::write_safetensors(path, out, {{"format", "pt"}});
}

}  // namespace vkflux
