// Products with packed weights (autograd/packed.h).
#include <algorithm>

#include "autograd/ops/binding.h"
#include "autograd/ops/matmul_tiles.h"
#include "autograd/packed.h"

namespace vkflux {
namespace {

// Scratch for decoded rows: what a CPU's caches hold; on GPUs enough rows to fill the device.
constexpr int64_t kSlabBytesSimd = 4 << 20, kSlabBytesGpu = 32 << 20;
// Above so many rows of C decoding once costs less than decoding in every tile: measured on lavapipe; on GPUs
// where the product without cooperative matrices takes as long as writing and reading the slab, or where that
// is a fifth of the product with them (estimated for an H200).
constexpr int64_t kMostRowsSimd = 192, kMostRowsGpu = 32, kMostRowsCoop = 1024;

// Cooperative matrices take slabs in f16: exact for fp8, 11 bits of the others' values.
bool coop_takes_slabs(Device& device, const Gemm& g) {
  if (g.b.ld % 8 != 0) return false;
  Gemm p = g;
  p.b.tensor = Tensor::empty(device, {0, g.b.ld}, DType::f16);
  return coop_tile(device, p).has_value();
}

}  // namespace

bool decodes_inside(Device& device, const Gemm& g) {
  if (g.k == 0) return true;
  if (use_simd(device, "matmul")) return fits_simd(g) && g.m <= kMostRowsSimd;
  if (g.m <= kMostRowsGpu || !coop_takes_slabs(device, g)) return true;
  return g.m <= kMostRowsCoop && coop_tile(device, g).has_value();
}

void gemm_by_slabs(Device& device, const Gemm& g) {
  const bool nt = g.form == GemmForm::nt, simd = use_simd(device, "matmul");
  const DType type = !simd && coop_takes_slabs(device, g) ? DType::f16 : DType::f32;
  const int64_t columns = g.b.ld, all = nt ? g.n : g.k;
  // Slices of C, A and the bias start at multiples of 256 bytes.
  const int64_t row_size = std::max<int64_t>(columns, 1) * static_cast<int64_t>(size_of(type));
  const int64_t most = std::min(simd ? kSlabBytesSimd : kSlabBytesGpu, max_binding_bytes(device.caps()));
  const int64_t step = std::max<int64_t>(64, most / row_size / 64 * 64);
  const Tensor slab = Tensor::empty(device, {std::min(step, all), columns}, type, MemoryClass::scratch);
  for (int64_t row = 0; row < all; row += step) {
    const int64_t rows = std::min(step, all - row);
    const Tensor part = slab.slice(0, 0, rows);
    decode_packed_rows(g.b.tensor, row, rows, part);
    Gemm p = g;
    p.b = {part, columns};
    if (nt) {
      p.n = rows;
      p.c.offset += row;
      if (g.bias.defined()) p.bias = g.bias.slice(0, row, rows);
    } else {
      p.k = rows;
      p.a.offset += row;
      p.accumulate = g.accumulate || row > 0;
      if (row + rows < all) p.bias = Tensor(), p.act = op::Activation::none, p.pre = Tensor();
    }
    gemm(device, p);
  }
}

}  // namespace vkflux
