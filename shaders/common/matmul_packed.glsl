// multiply() of shaders/matmul_simd.comp for packed weights (autograd/packed.h): B[N, K], b0 and p.ldb count texels.
#ifndef VKFLUX_MATMUL_PACKED_GLSL
#define VKFLUX_MATMUL_PACKED_GLSL
#include "packed_format.glsl"

int ia[MA], ib[4 * NV];

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

// Loops over the words of a texel stay loops: unrolled, their code would not fit the instruction cache.
uint word_of(uvec4 u, int c) { return c < 2 ? (c == 0 ? u.x : u.y) : (c == 2 ? u.z : u.w); }

void multiply_f8(int begin, int end) {
  for (int t = begin; t < end; t++) {
    uvec4 raw[4 * NV];
    [[unroll]] for (int j = 0; j < 4 * NV; j++) raw[j] = texelFetch(B, ib[j] + t);
    for (int c = 0; c < 4; c++) {
      vec4 b[4][NV];
      [[unroll]] for (int j = 0; j < 4 * NV; j++) {
        b[j % 4][j / 4] = byte_values(B_FORMAT, word_of(raw[j], c));
      }
      add_products(4 * t + c, b);
    }
  }
}

void multiply_q8(int begin, int end) {  // in blocks of 32
  for (int block = begin; block < end; block++) {
    const int group = block / 8, in_group = block % 8, blocks = min(8, int(p.k) / 32 - 8 * group);
    float d[4 * NV];
    [[unroll]] for (int j = 0; j < 4 * NV; j++) {
      d[j] = q8_scale(word_of(texelFetch(B, ib[j] + 17 * group + 2 * blocks), in_group / 2), uint(in_group));
    }
    for (int t = 0; t < 2; t++) {
      uvec4 raw[4 * NV];
      [[unroll]] for (int j = 0; j < 4 * NV; j++) raw[j] = texelFetch(B, ib[j] + 17 * group + 2 * in_group + t);
      for (int c = 0; c < 4; c++) {
        vec4 b[4][NV];
        [[unroll]] for (int j = 0; j < 4 * NV; j++) b[j % 4][j / 4] = d[j] * int8_values(word_of(raw[j], c));
        add_products(8 * block + 4 * t + c, b);
      }
    }
  }
}

// In blocks of 256. A texel of quants holds 16 values of one sub-block and 16 of the next.
void multiply_q4(int begin, int end) {
  for (int block = begin; block < end; block++) {
    vec2 d[4 * NV];
    uvec4 scales[4 * NV];
    [[unroll]] for (int j = 0; j < 4 * NV; j++) {
      const uvec4 header = texelFetch(B, ib[j] + 9 * block);
      d[j] = unpackHalf2x16(header.x);
      scales[j] = q4_scales(header.y, header.z, header.w);
    }
    for (int t = 0; t < 8; t++) {
      uvec4 raw[4 * NV];
      [[unroll]] for (int j = 0; j < 4 * NV; j++) raw[j] = texelFetch(B, ib[j] + 9 * block + 1 + t);
      const int first = 64 * block + 16 * (t / 2) + 4 * (t % 2);
      for (int nibble = 0; nibble < 2; nibble++) {
        vec2 affine[4 * NV];
        [[unroll]] for (int j = 0; j < 4 * NV; j++) affine[j] = q4_affine(d[j], scales[j], uint(t / 2 * 2 + nibble));
        for (int c = 0; c < 4; c++) {
          vec4 b[4][NV];
          [[unroll]] for (int j = 0; j < 4 * NV; j++) {
            b[j % 4][j / 4] = affine[j].x * nibble_values(word_of(raw[j], c) >> (4 * nibble)) - affine[j].y;
          }
          add_products(first + 8 * nibble + c, b);
        }
      }
    }
  }
}

void multiply(uint lane, uint a0, uint b0, uint k_begin, uint k_end) {
  [[unroll]] for (int m = 0; m < MA; m++) {
    ia[m] = int((a0 + min(gl_WorkGroupID.x * uint(ROWS) + uint(m * SG) + lane, p.m - 1) * p.lda) / 4);
  }
  [[unroll]] for (int j = 0; j < 4 * NV; j++) {
    ib[j] = int(b0 + min(4 * column_group(j / 4, lane) + uint(j % 4), p.n - 1) * p.ldb);
  }
  if (B_FORMAT == 6) {
    multiply_q4(int(k_begin) / 256, int(k_end) / 256);
  } else if (B_FORMAT == 5) {
    multiply_q8(int(k_begin) / 32, int(k_end) / 32);
  } else {
    multiply_f8(int(k_begin) / 16, int(k_end) / 16);
  }
}
#endif
