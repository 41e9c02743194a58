// How a matrix product is cut into workgroups, by structure of kernel. Behind gemm() alone.
#pragma once

#include <cstdint>
#include <optional>

#include "autograd/ops/matmul_engine.h"
#include "autograd/ops/packed_weights.h"
#include "autograd/run.h"

namespace vkflux {

struct Tile {
  KernelId kernel;
  int64_t rows, columns;          // of C
  int64_t step;                   // a split of K is a multiple of this
  bool counts_saturated = false;  // the kernel rounds A to f16 and takes a place of Device::saturated()
};

inline bool aligned(const GemmMatrix& x, int64_t to, int64_t batch) {
  return x.ld % to == 0 && x.offset % to == 0 && (batch == 1 || x.batch_stride % to == 0);
}

inline uint32_t b_format(const Gemm& g) {
  return weight_format(g.b.tensor.dtype());
}
inline bool b_packed(const Gemm& g) {
  return is_packed(g.b.tensor.dtype());
}

/// C's rows can be written as vec4.
inline bool vector_c(const Gemm& g) {
  return aligned(g.c, 4, g.batch) && (g.n % 4 == 0 || g.c_padded);
}

/// FLAGS of the kernels.
inline uint32_t flags(const Gemm& g) {
  return (g.bias.defined() ? 1u : 0u) | (g.accumulate ? 2u : 0u) | (g.pre.defined() ? 4u : 0u);
}

inline int64_t tile_count(const Gemm& g, int64_t rows, int64_t columns) {
  return (g.m + rows - 1) / rows * ((g.n + columns - 1) / columns) * g.batch;
}

/// For the kernels of one lane group per SIMD vector (shaders/matmul_simd.comp).
bool fits_simd(const Gemm& g);

/// Tiles in shared memory (shaders/matmul.comp): every shape and device.
Tile shared_tile(Device& device, const Gemm& g);

/// Whether shaders/matvec.comp is for g: so few rows of A that reading B is all there is to do.
bool few_rows(Device& device, const Gemm& g);
Tile row_tile(const Gemm& g);

/// The subgroup size that kernels with cooperative matrices are compiled for: 32 where that can be had, since
/// two narrow subgroups hide more latency than a wide one; at least 16, since narrower ones send more
/// messages for the same tile.
uint32_t coop_subgroup(const Caps& caps);

/// Cooperative matrices (shaders/matmul_coop.comp): none when the device has no fitting ones, when B is f32
/// (whose precision isn't given up), when rows aren't aligned, or on a CPU, unless VKFLUX_VARIANT=matmul:coop
/// asks for it there.
std::optional<Tile> coop_tile(Device& device, const Gemm& g);

/// Whether the kernels decode packed B themselves in this product; else gemm_by_slabs().
bool decodes_inside(Device& device, const Gemm& g);
/// Decodes some rows of packed B at a time into scratch of bounded size and multiplies with those.
void gemm_by_slabs(Device& device, const Gemm& g);

}  // namespace vkflux
