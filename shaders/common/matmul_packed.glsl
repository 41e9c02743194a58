// multiply() of shaders/matmul_simd.comp for packed weights (packed_format.glsl): B[N, K], b0 and p.ldb count texels.
#ifndef VKFLUX_MATMUL_PACKED_GLSL
#define VKFLUX_MATMUL_PACKED_GLSL
#define PACKED_FORMAT B_FORMAT
#define PACKED_WORD(i) texelFetch(B, int((i) / 4))[(i) % 4]
#include "packed_format.glsl"

int ia[MA];

// Adds the products of A's texel column with four decoded columns of every row of B that the lane owns.
void add_products(int a_texel, vec4 b[4][NV]) {
  [[unroll]] for (int m = 0; m < MA; m++) {
    const vec4 a = texelFetch(A, ia[m] + a_texel);
    [[unroll]] for (int i = 0; i < SG; i++) {
      const vec4 s = vec4(subgroupShuffle(a.x, i), subgroupShuffle(a.y, i), subgroupShuffle(a.z, i), subgroupShuffle(a.w, i));
      [[unroll]] for (int j = 0; j < NV; j++) {
        [[unroll]] for (int r = 0; r < 4; r++) {
          const vec4 w = b[r][j];
          acc[m * SG + i][j][r] += s.x * w.x + s.y * w.y + s.z * w.z + s.w * w.w;
        }
      }
    }
  }
}

void multiply(uint lane, uint a0, uint b0, uint k_begin, uint k_end) {
  [[unroll]] for (int m = 0; m < MA; m++) {
    ia[m] = int((a0 + min(gl_WorkGroupID.x * uint(ROWS) + uint(m * SG) + lane, p.m - 1) * p.lda) / 4);
  }
  uint row[4 * NV];  // its first word
  [[unroll]] for (int j = 0; j < 4 * NV; j++) {
    row[j] = 4 * (b0 + min(4 * column_group(j / 4, lane) + uint(j % 4), p.n - 1) * p.ldb);
  }
  for (uint unit = k_begin / 16; unit < k_end / 16; unit++) {
    PackedUnit raw[4 * NV];
    vec2 scale[4 * NV];
    [[unroll]] for (int j = 0; j < 4 * NV; j++) {
      raw[j] = packed_unit(row[j], p.k, unit);
      scale[j] = unit_scale(raw[j].scale, unit);
    }
    // Stays a loop: unrolled, its code would not fit the instruction cache.
    for (uint g = 0; g < 4; g++) {
      vec4 b[4][NV];
      [[unroll]] for (int j = 0; j < 4 * NV; j++) {
        const uvec4 low = raw[j].low;
        const uint word = g < 2 ? (g == 0 ? low.x : low.y) : (g == 2 ? low.z : low.w);
        b[j % 4][j / 4] = group_values(group_numbers(word, raw[j].high, 4 * unit + g), scale[j]);
      }
      add_products(int(4 * unit + g), b);
    }
  }
}
#endif
