#ifndef VKFLUX_ATTENTION_ARGS_H
#define VKFLUX_ATTENTION_ARGS_H
// A slab of scores: rows r of [count, slab_rows, ld], where head bh = bh0 + r / slab_rows of the B H heads
// and query q = q0 + r % slab_rows; total_rows = count * slab_rows. ld is nk rounded up to a multiple of 4,
// ld4 = ld / 4.
struct AttentionSlabArgs {
  uint total_rows, slab_rows;
  uint bh0, q0;
  uint heads, nq, nk, ld4;
};
struct AttentionKeepArgs {
  uint batch, nk, ld4;
};
struct AttentionDeltaArgs {
  uint rows, d4;
};
struct AttentionDbiasArgs {
  uint batch, heads, slab_rows, q0, nq, nk, ld4;
};
// Products of panels (matmul_panel.comp): queries q0 .. q0 + rows of heads bh0 + workgroup z. Counts per
// head: blocks of SG rows in panels whose rows are queries, keys or columns of V; texels of a row in panels
// along queries, keys and D.
struct AttentionPanelArgs {
  uint rows, q0, bh0, heads, nq, nk;
  uint d4, ld4;  // texels of a row of O, of the key mask
  uint q_blocks, k_blocks, d_blocks;
  uint q4, k4, x4;
  uint key_tiles;
  float scale;
};
#endif
