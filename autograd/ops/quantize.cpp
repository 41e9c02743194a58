// f32 to packed weights and back. fp8, q8_0 and q4_k are encoded by the device, other types by the host.
#include <algorithm>

#include "autograd/blocks.h"
#include "autograd/ops.h"
#include "autograd/ops/binding.h"
#include "autograd/ops/packed_weights.h"
#include "autograd/packed.h"
#include "autograd/run.h"

namespace vkflux {
namespace {

constexpr uint32_t kLocal = 64;

uint64_t divided(int64_t a, int64_t b) {
  return ceil_div(static_cast<uint64_t>(a), static_cast<uint64_t>(b));
}

// Rows whose dense form one binding covers; whole numbers of them start at multiples of 256 bytes.
int64_t rows_per_run(const Device& device, int64_t columns) {
  const int64_t floats = max_binding_bytes(device.caps()) / 4;
  return std::max<int64_t>(64, floats / std::max<int64_t>(columns, 1) / 64 * 64);
}

void encode(const Tensor& x, const Tensor& y) {
  const int64_t rows = x.dim(0), columns = x.dim(1);
  const uint64_t row_texels = row_bytes(y.dtype(), columns) / 16;
  const bool f8 = block_values(y.dtype()) == 1, q4 = y.dtype() == DType::q4_k;
  const uint64_t groups = f8 ? ceil_div(static_cast<uint64_t>(rows) * row_texels, kLocal)
                             : ceil_div(static_cast<uint64_t>(rows) * divided(columns, 256), kLocal / 8);
  const double n = static_cast<double>(x.numel());
  run(x.device(),
      {spec::Quantize{.LOCAL = kLocal, .FORMAT = weight_format(y.dtype())}, f8   ? "f8"
                                                                            : q4 ? "q4"
                                                                                 : "q8"},
      {x, y}, args::QuantizeArgs{u32(rows), u32(columns), static_cast<uint32_t>(row_texels)},
      groups_1d(groups),
      {(q4   ? 320
        : f8 ? 10
             : 6) *
           n,
       4 * n + static_cast<double>(y.bytes())});
}

bool encoded_by_device(DType t) {
  return block_values(t) == 1 || t == DType::q8_0 || t == DType::q4_k;
}

Tensor encoded_by_host(const Tensor& x, DType t) {
  // Whoever rehearses counts memory: there are no values to encode.
  if (x.device().rehearsing()) return Tensor::empty(x.device(), x.shape(), t, MemoryClass::weights);
  const std::vector<float> values = x.to_host();
  std::vector<std::byte> blocks(file_bytes(t, x.numel()));
  encode_blocks(t, values, blocks);
  return Tensor::from_bytes(x.device(), pack_rows(t, blocks, x.shape()), x.shape(), t, MemoryClass::weights);
}

}  // namespace

uint32_t weight_format(DType t) {
  if (is_packed(t)) return 3 + static_cast<uint32_t>(t) - static_cast<uint32_t>(DType::f8_e4m3);
  return t == DType::f16 ? 1 : t == DType::bf16 ? 2 : 0;
}

void decode_packed_rows(const Tensor& packed, int64_t row, int64_t rows, const Tensor& to) {
  const int64_t columns = packed.dim(1);
  if (rows == 0 || columns == 0) return;
  const DType t = packed.dtype();
  const uint64_t row_texels = row_bytes(t, columns) / 16;
  const uint64_t items = static_cast<uint64_t>(rows) * divided(columns, 16);
  int64_t lead = 0;
  const Tensor bytes = packed.slice(0, row, rows).covering(&lead);
  const bool half = to.dtype() != DType::f32;
  const double n = static_cast<double>(rows * columns), size = half ? 2 : 4;
  run(packed.device(),
      {spec::Dequantize{.LOCAL = kLocal, .FORMAT = weight_format(t), .BF16 = to.dtype() == DType::bf16},
       half               ? "b16"
       : columns % 4 == 0 ? "f32"
                          : "scalar"},
      {bytes, to},
      args::DequantizeArgs{u32(columns), static_cast<uint32_t>(row_texels), static_cast<uint32_t>(items),
                           u32(lead / 16)},
      groups_1d(ceil_div(items, kLocal)),
      {3 * n, size * n + static_cast<double>(static_cast<uint64_t>(rows) * row_bytes(t, columns))});
}

namespace op {

Tensor quantize(const Tensor& x, DType dtype) {
  expect("quantize", x.dtype() == DType::f32 && is_packed(dtype), "needs f32 values and a packed type", {&x});
  check_packed(dtype, x.shape());
  if (!encoded_by_device(dtype)) return encoded_by_host(x, dtype);
  const Tensor source = contiguous(x);
  const Tensor y = Tensor::empty(x.device(), x.shape(), dtype, MemoryClass::weights);
  const int64_t step = rows_per_run(x.device(), x.dim(1));
  for (int64_t row = 0; row < x.dim(0) && x.dim(1) > 0; row += step) {
    const int64_t rows = std::min(step, x.dim(0) - row);
    encode(source.slice(0, row, rows), y.slice(0, row, rows));
  }
  return y;
}

Tensor dequantize(const Tensor& w, DType dtype) {
  expect("dequantize",
         is_packed(w.dtype()) && (dtype == DType::f32 || dtype == DType::f16 || dtype == DType::bf16),
         "a packed matrix becomes f32, f16 or bf16", {&w});
  if (dtype != DType::f32 && w.dim(1) % 8 != 0) return cast(dequantize(w, DType::f32), dtype);
  const Tensor y = Tensor::empty(w.device(), w.shape(), dtype);
  const int64_t step = rows_per_run(w.device(), w.dim(1));
  for (int64_t row = 0; row < w.dim(0); row += step) {
    const int64_t rows = std::min(step, w.dim(0) - row);
    decode_packed_rows(w, row, rows, y.slice(0, row, rows));
  }
  return y;
}

}  // namespace op
}  // namespace vkflux
