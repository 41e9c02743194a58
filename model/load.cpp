#include "model/load.h"

#include <fmt/format.h>

#include <cmath>

#include "autograd/ops.h"
#include "model/weight_storage.h"
#include "vk/error.h"

namespace vkflux {
namespace {

std::vector<int64_t> dims(const Shape& s) {
  return {s.begin(), s.end()};
}

// f32 values to packed matrices, with a bounded number of bytes on the device in f32.
class Quantiser {
 public:
  explicit Quantiser(Device& device) : device_(device) {}

  Tensor operator()(std::span<const float> values, const Shape& shape, DType dtype) {
    constexpr size_t kMostWaiting = size_t{256} << 20;
    if (waiting_ > 0 && waiting_ + values.size_bytes() > kMostWaiting) {
      device_.stream().sync();
      waiting_ = 0;
    }
    waiting_ += values.size_bytes();
    return op::quantize(Tensor::from(device_, values, shape, DType::f32, MemoryClass::scratch), dtype);
  }

 private:
  Device& device_;
  size_t waiting_ = 0;  // bytes of f32 values that the device may still hold
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

void load(const std::vector<Param>& params, const io::NamedTensors& file, Device& device, DType matrices) {
  io::NamedShapes expected;
  for (const Param& p : params) expected.emplace_back(p.name, dims(p.shape));
  file.check(expected);
  const ErrorContext context(file.path());
  Quantiser quantiser(device);
  for (const Param& p : params) {
    const ErrorContext tensor(p.name);
    const std::vector<float> values = file.read_f32(p.name);
    if (p.shape.rank() < 2) {
      for (const float v : values) {
        if (!std::isfinite(v))
          throw Error(ErrorCode::format, fmt::format("holds {}: the file is damaged", v));
      }
    }
    const DType dtype = storage_of(p, matrices, file.dtype(p.name));
    *p.tensor = is_packed(dtype) ? quantiser(values, p.shape, dtype)
                                 : Tensor::from(device, std::span<const float>(values), p.shape, dtype,
                                                MemoryClass::weights);
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
