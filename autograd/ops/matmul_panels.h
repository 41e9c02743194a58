// Operands of a matrix product copied into the order in which the panel kernel reads them. Behind gemm()
// alone.
#pragma once

#include <cstdint>

#include "autograd/ops/matmul_tiles.h"

namespace vkflux {

/// Whether the panel kernel can run g, and its gain pays for the copies.
bool use_panels(Device& device, const Gemm& g);

/// Tile of shaders/matmul_simd.comp, variant panel.
Tile panel_tile(const Caps& caps, const Gemm& g);

/// K as the panel kernel sees it.
inline int64_t panel_k(int64_t k) {
  return (k + 7) / 8 * 8;
}

/// Rows of C per subgroup; panels of A, and those of B, end with whole tiles.
constexpr int64_t kPanelRows = 16, kPanelColumns = 64;

/// Blocks of subgroup_size rows in a panel of so many rows that end with whole tiles.
inline int64_t panel_blocks(const Caps& caps, int64_t rows, int64_t tile) {
  return (rows + tile - 1) / tile * tile / caps.subgroup_size;
}

/// Runs g, whose operands are panels.
void multiply_panels(Device& device, const Gemm& g);

/// Copies of op(A) and op(B); ld is from one block of subgroup_size rows to the next.
GemmMatrix pack_a(Device& device, const Gemm& g);
GemmMatrix pack_b(Device& device, const Gemm& g);

/// Rows of a matrix of K columns whose copy stays within what one binding, and scratch memory, should take.
int64_t most_panel_rows(const Caps& caps, int64_t k);

}  // namespace vkflux
