// acc += A B^T of two panels (matmul_panel.comp): the inner loop of every kernel that multiplies panels. Fetches read
// consecutive memory, where rows at strides of some KiB fall on the same cache sets, and two texels of K share an update
// of the accumulators (in a loop each one is loaded, blended by the mask of active lanes and stored).
// The including shader declares SG, MA and NV (even groups of four columns per lane), vec4 acc[SG * MA][NV], and the
// fetches vec4 panel_a(int m, int texel), m the block of rows, and vec4 panel_b(int texel).
#ifndef VKFLUX_PANEL_PRODUCT_GLSL
#define VKFLUX_PANEL_PRODUCT_GLSL

// a0, b0: the lane's texel in the tile's first block of A and B; a_block, b_block: texels from one block to the next.
// The rows of B's blocks 4 j .. 4 j + 3 are the columns of group j. k4: texels of K, even.
void panel_product(int a0, int a_block, int b0, int b_block, int k4) {
  for (int t = 0; t < k4; t += 2) {
    vec4 b[4 * NV][2];
    [[unroll]] for (int j = 0; j < 4 * NV; j++) {
      [[unroll]] for (int u = 0; u < 2; u++) b[j][u] = panel_b(b0 + j * b_block + (t + u) * SG);
    }
    [[unroll]] for (int m = 0; m < MA; m++) {
      const vec4 a = panel_a(m, a0 + m * a_block + t * SG), a1 = panel_a(m, a0 + m * a_block + (t + 1) * SG);
      [[unroll]] for (int i = 0; i < SG; i++) {
        const vec4 s = vec4(subgroupShuffle(a.x, i), subgroupShuffle(a.y, i), subgroupShuffle(a.z, i), subgroupShuffle(a.w, i));
        const vec4 s1 = vec4(subgroupShuffle(a1.x, i), subgroupShuffle(a1.y, i), subgroupShuffle(a1.z, i), subgroupShuffle(a1.w, i));
        [[unroll]] for (int j = 0; j < 4 * NV; j++) {
          const vec4 w = b[j][0], w1 = b[j][1];
          acc[m * SG + i][j / 4][j % 4] += (s.x * w.x + s.y * w.y + s.z * w.z + s.w * w.w) +
                                           (s1.x * w1.x + s1.y * w1.y + s1.z * w1.z + s1.w * w1.w);
        }
      }
    }
  }
}
#endif
