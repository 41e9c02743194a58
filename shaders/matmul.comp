#version 450
// C = act(alpha op(A) op(B) + bias) with tiles in shared memory: GPUs, and every shape and alignment.
//   nt: A[M, K], B[N, K]   nn: A[M, K], B[K, N]   tn: A[K, M], B[K, N]
// A workgroup computes BM x BN of C in steps of BK; an invocation holds TM consecutive rows x groups of four columns that
// lie 4 TX apart. While a step is multiplied, the next one is on its way into registers. Tiles keep the operand's own order,
// so that every access, global and shared, is a vec4: with K innermost a tile row is an odd number of vec4 long, else it is
// BM or BN long.
//@variant scalar
//@variant vec4 VEC=1 B_TYPE=vec4
//@variant vec4_b16 VEC=1 B_TYPE=uvec2
//@variant vec4_packed VEC=1 B_TYPE=uint PACKED=1
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "matmul.args.h"
#include "weight_format.glsl"

layout(local_size_x_id = 0) in;
layout(constant_id = 0) const uint LOCAL = 256;
layout(constant_id = 1) const uint TX = 16;       // invocations along N
layout(constant_id = 2) const uint TM = 4;        // rows and columns of an invocation: multiples of 4
layout(constant_id = 3) const uint TN = 4;
layout(constant_id = 4) const uint BK = 16;       // a multiple of 8
layout(constant_id = 5) const uint FORM = 0;      // 0 nt, 1 nn, 2 tn
layout(constant_id = 6) const uint B_FORMAT = 0;  // weight_format.glsl; from 3 on, B is [rows, columns] of
                                                  // packed rows, ldb and b_offset count words
layout(constant_id = 7) const uint FLAGS = 0;     // 1 bias, 2 accumulate, 4 also write the pre-activation
layout(constant_id = 8) const uint ACT = 0;

layout(push_constant) uniform Push { MatmulArgs p; };
#ifdef VEC  // every row of A, B and C starts at a multiple of four elements, and so many belong to it
layout(set = 0, binding = 0) readonly buffer A { vec4 a[]; };
layout(set = 0, binding = 1) readonly buffer B { B_TYPE b[]; };
#include "matmul_epilogue.glsl"
#else
#include "linear_activation.glsl"
layout(set = 0, binding = 0) readonly buffer A { float a[]; };
layout(set = 0, binding = 1) readonly buffer B { uint b[]; };
layout(set = 0, binding = 2) readonly buffer Bias { float bias[]; };
layout(set = 0, binding = 3) buffer C { float c[]; };
layout(set = 0, binding = 4) writeonly buffer Pre { float pre[]; };
#endif
#if defined(PACKED) || !defined(VEC)
#define PACKED_FORMAT B_FORMAT
#define PACKED_WORD(i) b[i]
#include "packed_format.glsl"
#endif

const uint BM = LOCAL / TX * TM, BN = TX * TN, BK4 = BK / 4, TM4 = TM / 4, TN4 = TN / 4;
const bool A_BY_K = FORM != 2, B_BY_K = FORM == 0;  // K is the innermost dimension
const uint ROW4 = BK4 + 1;
const uint A_SIZE = A_BY_K ? BM * ROW4 : BK * (BM / 4), B_SIZE = B_BY_K ? BN * ROW4 : BK * (BN / 4);
const uint A_PART = (BM * BK4 + LOCAL - 1) / LOCAL, B_PART = (BN * BK4 + LOCAL - 1) / LOCAL;
shared vec4 tile_a[A_SIZE];
shared vec4 tile_b[B_SIZE];

vec4 part_a[A_PART], part_b[B_PART];  // this invocation's share of the next step
vec4 acc[TM][TN4];

vec4 first(vec4 x, uint count) { return mix(x, vec4(0), greaterThanEqual(uvec4(0, 1, 2, 3), uvec4(count))); }

// Four consecutive elements, of which `count` exist.
#ifdef PACKED_WORD
vec4 load_packed(uint b0, uint row, uint column, uint count) {
  if (count == 0) return vec4(0);
  return first(packed_values(b0 + row * p.ldb, B_BY_K ? p.k : p.n, column), count);
}
#endif
#ifdef VEC
vec4 load_a(uint at, uint count) { return count == 0 ? vec4(0) : first(a[at / 4], count); }
#ifdef PACKED
vec4 load_b(uint b0, uint row, uint column, uint count) { return load_packed(b0, row, column, count); }
#else
vec4 decode(vec4 x) { return x; }
vec4 decode(uvec2 u) { return decode_weights(B_FORMAT, uvec4(u, u), 0); }
vec4 load_b(uint b0, uint row, uint column, uint count) {
  return count == 0 ? vec4(0) : first(decode(b[(b0 + row * p.ldb + column) / 4]), count);
}
#endif
#else
float decode(uint at) { return decode_weight(B_FORMAT, b[weight_word(B_FORMAT, at)], at); }
vec4 load_a(uint at, uint count) {
  vec4 x = vec4(0);
  [[unroll]] for (uint r = 0; r < 4; r++) {
    if (r < count) x[r] = a[at + r];
  }
  return x;
}
vec4 load_b(uint b0, uint row, uint column, uint count) {
  if (B_FORMAT >= 3) return load_packed(b0, row, column, count);
  const uint at = b0 + row * p.ldb + column;
  vec4 x = vec4(0);
  [[unroll]] for (uint r = 0; r < 4; r++) {
    if (r < count) x[r] = decode(at + r);
  }
  return x;
}
#endif

uint left(uint end, uint at) { return at < end ? min(end - at, 4) : 0; }

// Element i of a tile of `wide` rows or columns: where it starts along M or N (x), and along K (y).
uvec2 place(bool by_k, uint i, uint wide) {
  return by_k ? uvec2(i / BK4, 4 * (i % BK4)) : uvec2(4 * (i % (wide / 4)), i / (wide / 4));
}

void fetch(uint a0, uint b0, uint m0, uint n0, uint k0, uint k_end) {
  [[unroll]] for (uint t = 0; t < A_PART; t++) {
    const uvec2 at = uvec2(m0, k0) + place(A_BY_K, t * LOCAL + gl_LocalInvocationIndex, BM);
    const bool inside = at.x < p.m && at.y < k_end;
    part_a[t] = A_BY_K ? load_a(a0 + at.x * p.lda + at.y, inside ? left(k_end, at.y) : 0)
                       : load_a(a0 + at.y * p.lda + at.x, inside ? left(p.m, at.x) : 0);
  }
  [[unroll]] for (uint t = 0; t < B_PART; t++) {
    const uvec2 at = uvec2(n0, k0) + place(B_BY_K, t * LOCAL + gl_LocalInvocationIndex, BN);
    const bool inside = at.x < p.n && at.y < k_end;
    const uvec2 b_at = B_BY_K ? at : at.yx;  // row and column
    part_b[t] = load_b(b0, b_at.x, b_at.y, inside ? left(B_BY_K ? k_end : p.n, b_at.y) : 0);
  }
}

// Rows of B with K innermost are kept in the order of n % 4, then n / 4: the rows that neighbouring invocations read at once
// are neighbours.
void keep() {
  [[unroll]] for (uint t = 0; t < A_PART; t++) {
    const uint i = t * LOCAL + gl_LocalInvocationIndex;
    if (i < BM * BK4) tile_a[A_BY_K ? i / BK4 * ROW4 + i % BK4 : i] = part_a[t];
  }
  [[unroll]] for (uint t = 0; t < B_PART; t++) {
    const uint i = t * LOCAL + gl_LocalInvocationIndex, n = i / BK4;
    if (i < BN * BK4) tile_b[B_BY_K ? (n % 4 * (BN / 4) + n / 4) * ROW4 + i % BK4 : i] = part_b[t];
  }
}

void multiply(uint tx, uint ty) {
  for (uint k4 = 0; k4 < BK4; k4++) {
    vec4 w[4][TN4];  // [k][columns]
    [[unroll]] for (uint g = 0; g < TN4; g++) {
      const uint column4 = g * TX + tx;
      [[unroll]] for (uint r = 0; r < 4; r++) {
        if (B_BY_K) {
          const vec4 x = tile_b[(r * (BN / 4) + column4) * ROW4 + k4];
          [[unroll]] for (uint e = 0; e < 4; e++) w[e][g][r] = x[e];
        } else {
          w[r][g] = tile_b[(4 * k4 + r) * (BN / 4) + column4];
        }
      }
    }
    if (A_BY_K) {
      [[unroll]] for (uint i = 0; i < TM; i++) {
        const vec4 x = tile_a[(ty * TM + i) * ROW4 + k4];
        [[unroll]] for (uint r = 0; r < 4; r++) [[unroll]] for (uint g = 0; g < TN4; g++) acc[i][g] += x[r] * w[r][g];
      }
    } else {
      [[unroll]] for (uint r = 0; r < 4; r++) {
        [[unroll]] for (uint i = 0; i < TM; i += 4) {
          const vec4 x = tile_a[(4 * k4 + r) * (BM / 4) + ty * TM4 + i / 4];
          [[unroll]] for (uint e = 0; e < 4; e++) [[unroll]] for (uint g = 0; g < TN4; g++) acc[i + e][g] += x[e] * w[r][g];
        }
      }
    }
  }
}

#ifndef VEC
void store(uint at, uint n, vec4 v) {
  [[unroll]] for (uint r = 0; r < 4; r++) {
    if (n + r >= p.n) continue;
    if ((FLAGS & 1) != 0) v[r] += bias[n + r];
    if ((FLAGS & 2) != 0) v[r] += c[at + r];
    if ((FLAGS & 4) != 0) pre[at + r] = v[r];
  }
  const vec4 y = linear_activation(ACT, v);
  [[unroll]] for (uint r = 0; r < 4; r++) {
    if (n + r < p.n) c[at + r] = y[r];
  }
}
#endif

void main() {
  const uint batch = gl_WorkGroupID.z / p.splits, k_begin = gl_WorkGroupID.z % p.splits * p.k_split;
  const uint k_end = min(k_begin + p.k_split, p.k);
  const uint a0 = p.a_offset + batch * p.a_batch, b0 = p.b_offset + batch * p.b_batch;
  const uint m0 = gl_WorkGroupID.x * BM, n0 = gl_WorkGroupID.y * BN;
  const uint tx = gl_LocalInvocationIndex % TX, ty = gl_LocalInvocationIndex / TX;
  [[unroll]] for (uint i = 0; i < TM; i++) [[unroll]] for (uint g = 0; g < TN4; g++) acc[i][g] = vec4(0);
  fetch(a0, b0, m0, n0, k_begin, k_end);
  for (uint k0 = k_begin; k0 < k_end; k0 += BK) {
    keep();
    barrier();
    if (k0 + BK < k_end) fetch(a0, b0, m0, n0, k0 + BK, k_end);
    multiply(tx, ty);
    barrier();
  }
  const uint c0 = p.c_offset + gl_WorkGroupID.z * p.c_batch;
  [[unroll]] for (uint i = 0; i < TM; i++) {
    const uint m = m0 + ty * TM + i;
    [[unroll]] for (uint g = 0; g < TN4; g++) {
      const uint n = n0 + 4 * (g * TX + tx);
      if (m < p.m && n < p.n) store(c0 + m * p.ldc + n, n, p.alpha * acc[i][g]);
    }
  }
}
