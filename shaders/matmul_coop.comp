#version 450
// C = act(alpha op(A) op(B) + bias) on cooperative matrices: 16-bit factors, f32 sums.
//   nt: A[M, K], B[N, K]   nn: A[M, K], B[K, N]   tn: A[K, M], B[K, N]
// A is f32 in memory and is rounded to the factors' type on its way into shared memory, f16 with saturation at +-65504, which
// is counted; B is
// 16-bit and is copied as it is when it has the factors' type, or it is packed and is decoded. A workgroup computes BM x BN of C in steps of BK, each of its
// subgroups CM x CN matrices of TM x TN. While a step is multiplied, the next one is on its way into registers. Tiles keep
// the operand's own order, their rows are padded by 16 bytes against bank conflicts. Finished sums go through shared memory
// to the invocations, which know their rows and columns there. Rows of A, B and C start at multiples of four elements.
//@variant f16 coopmat,fp16
//@variant bf16 coopmat,bf16 BF16=1
//@variant f16_packed coopmat,fp16 PACKED=1
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#extension GL_KHR_cooperative_matrix : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_KHR_shader_subgroup_basic : require
#ifdef BF16
#extension GL_EXT_bfloat16 : require
#define FACTOR bfloat16_t
#define FACTOR_FORMAT 2
#else
#define FACTOR float16_t
#define FACTOR_FORMAT 1
#endif
#include "matmul.args.h"
#include "factors.glsl"
#include "weight_format.glsl"

layout(local_size_x_id = 0) in;
layout(constant_id = 0) const uint LOCAL = 256;
layout(constant_id = 1) const uint SG = 32;  // subgroup size
layout(constant_id = 2) const uint TM = 16;
layout(constant_id = 3) const uint TN = 16;
layout(constant_id = 4) const uint TK = 16;
layout(constant_id = 5) const uint CM = 4;
layout(constant_id = 6) const uint CN = 2;
layout(constant_id = 7) const uint ACROSS = 4;  // subgroups side by side along N
layout(constant_id = 8) const uint BK = 32;     // a multiple of TK
layout(constant_id = 9) const uint FORM = 0;    // 0 nt, 1 nn, 2 tn
layout(constant_id = 10) const uint B_FORMAT = 1;  // of weight_format.glsl; packed: ldb and b_offset count words
layout(constant_id = 11) const uint FLAGS = 0;     // 1 bias, 2 accumulate, 4 also write the pre-activation
layout(constant_id = 12) const uint ACT = 0;

layout(set = 0, binding = 0) readonly buffer A { vec4 a[]; };
#ifdef PACKED
layout(set = 0, binding = 1) readonly buffer B { uint b[]; };
#define PACKED_FORMAT B_FORMAT
#define PACKED_WORD(i) b[i]
#include "packed_format.glsl"
#else
layout(set = 0, binding = 1) readonly buffer B { uvec2 b[]; };
#endif
#ifndef BF16
layout(set = 0, binding = 5) buffer Saturated { uint all_saturated[]; };
#endif
layout(push_constant) uniform Push { MatmulArgs p; };
#include "matmul_epilogue.glsl"

const uint SUBGROUPS = LOCAL / SG, BM = SUBGROUPS / ACROSS * CM * TM, BN = ACROSS * CN * TN, BK4 = BK / 4;
const bool A_BY_K = FORM != 2, B_BY_K = FORM == 0;  // K is the innermost dimension
const uint A_ROW = (A_BY_K ? BK4 : BM / 4) / 2 + 1, B_ROW = (B_BY_K ? BK4 : BN / 4) / 2 + 1;
const uint A_PART = (BM * BK4 + LOCAL - 1) / LOCAL, B_PART = (BN * BK4 + LOCAL - 1) / LOCAL;
shared uvec4 tile_a[(A_BY_K ? BM : BK) * A_ROW];  // eight factors each
shared uvec4 tile_b[(B_BY_K ? BN : BK) * B_ROW];
shared vec4 sums[SUBGROUPS * TM * TN / 4];

uvec2 part_a[A_PART], part_b[B_PART];  // this invocation's share of the next step
coopmat<float, gl_ScopeSubgroup, TM, TN, gl_MatrixUseAccumulator> acc[CM * CN];

// Of four factors the first `count`.
uvec2 first(uvec2 u, uint count) {
  return u & uvec2(count > 1 ? ~0u : count * 0xffffu, count > 3 ? ~0u : count > 2 ? 0xffffu : 0u);
}
// Of four values the first `count`.
vec4 first(vec4 v, uint count) { return mix(vec4(0), v, lessThan(uvec4(0, 1, 2, 3), uvec4(count))); }
uvec2 load_a(uint at, uint count) { return count == 0 ? uvec2(0) : factors(first(a[at / 4], count)); }
#ifdef PACKED
uvec2 load_b(uint b0, uint row, uint column, uint count) {
  if (count == 0) return uvec2(0);
  return factors(first(packed_values(b0 + row * p.ldb, B_BY_K ? p.k : p.n, column), count));
}
#else
uvec2 load_b(uint b0, uint row, uint column, uint count) {
  if (count == 0) return uvec2(0);
  const uvec2 raw = b[(b0 + row * p.ldb + column) / 4];
  if (B_FORMAT == FACTOR_FORMAT) return first(raw, count);
  return factors(first(decode_weights(B_FORMAT, uvec4(raw, raw), 0), count));
}
#endif

uint left(uint end, uint at) { return at < end ? min(end - at, 4) : 0; }

// Element i of a tile of `wide` rows or columns: where it starts along M or N (x), and along K (y).
uvec2 place(bool by_k, uint i, uint wide) {
  return by_k ? uvec2(i / BK4, 4 * (i % BK4)) : uvec2(4 * (i % (wide / 4)), i / (wide / 4));
}

void fetch(uint a0, uint b0, uint m0, uint n0, uint k0, uint k_end) {
#ifndef BF16
  const uint before = saturated;
#endif
  [[unroll]] for (uint t = 0; t < A_PART; t++) {
    const uvec2 at = uvec2(m0, k0) + place(A_BY_K, t * LOCAL + gl_LocalInvocationIndex, BM);
    const bool inside = at.x < p.m && at.y < k_end;
    part_a[t] = A_BY_K ? load_a(a0 + at.x * p.lda + at.y, inside ? left(k_end, at.y) : 0)
                       : load_a(a0 + at.y * p.lda + at.x, inside ? left(p.m, at.x) : 0);
  }
#ifndef BF16
  // An element is counted by one of the workgroups that read it.
  const uint of_a = gl_WorkGroupID.y == 0 ? saturated - before : 0;
  saturated = 0;
#endif
  [[unroll]] for (uint t = 0; t < B_PART; t++) {
    const uvec2 at = uvec2(n0, k0) + place(B_BY_K, t * LOCAL + gl_LocalInvocationIndex, BN);
    const bool inside = at.x < p.n && at.y < k_end;
    const uvec2 b_at = B_BY_K ? at : at.yx;  // row and column
    part_b[t] = load_b(b0, b_at.x, b_at.y, inside ? left(B_BY_K ? k_end : p.n, b_at.y) : 0);
  }
#ifndef BF16
  saturated = before + of_a + (gl_WorkGroupID.x == 0 ? saturated : 0);
#endif
}

void keep() {
  [[unroll]] for (uint t = 0; t < A_PART; t++) {
    const uint i = t * LOCAL + gl_LocalInvocationIndex, wide4 = A_BY_K ? BK4 : BM / 4;
    if (i < BM * BK4) { PUT_FACTORS(tile_a, i / wide4 * 2 * A_ROW + i % wide4, part_a[t]); }
  }
  [[unroll]] for (uint t = 0; t < B_PART; t++) {
    const uint i = t * LOCAL + gl_LocalInvocationIndex, wide4 = B_BY_K ? BK4 : BN / 4;
    if (i < BN * BK4) { PUT_FACTORS(tile_b, i / wide4 * 2 * B_ROW + i % wide4, part_b[t]); }
  }
}

// Row and column of the subgroup's part in the workgroup's tile.
uint subgroup_row() { return gl_SubgroupID / ACROSS * CM * TM; }
uint subgroup_column() { return gl_SubgroupID % ACROSS * CN * TN; }

void multiply() {
  const uint row = subgroup_row(), column = subgroup_column();
  [[unroll]] for (uint k = 0; k < BK; k += TK) {
    coopmat<FACTOR, gl_ScopeSubgroup, TM, TK, gl_MatrixUseA> x[CM];
    [[unroll]] for (uint i = 0; i < CM; i++) {
      const uint m = row + i * TM;
      if (A_BY_K) {
        coopMatLoad(x[i], tile_a, m * A_ROW + k / 8, A_ROW, gl_CooperativeMatrixLayoutRowMajor);
      } else {
        coopMatLoad(x[i], tile_a, k * A_ROW + m / 8, A_ROW, gl_CooperativeMatrixLayoutColumnMajor);
      }
    }
    [[unroll]] for (uint j = 0; j < CN; j++) {
      coopmat<FACTOR, gl_ScopeSubgroup, TK, TN, gl_MatrixUseB> w;
      const uint n = column + j * TN;
      if (B_BY_K) {
        coopMatLoad(w, tile_b, n * B_ROW + k / 8, B_ROW, gl_CooperativeMatrixLayoutColumnMajor);
      } else {
        coopMatLoad(w, tile_b, k * B_ROW + n / 8, B_ROW, gl_CooperativeMatrixLayoutRowMajor);
      }
      [[unroll]] for (uint i = 0; i < CM; i++) acc[i * CN + j] = coopMatMulAdd(x[i], w, acc[i * CN + j]);
    }
  }
}

void store_all(uint m0, uint n0) {
  const uint c0 = p.c_offset + gl_WorkGroupID.z * p.c_batch, part = gl_SubgroupID * (TM * TN / 4);
  [[unroll]] for (uint i = 0; i < CM; i++) {
    [[unroll]] for (uint j = 0; j < CN; j++) {
      coopMatStore(acc[i * CN + j], sums, part, TN / 4, gl_CooperativeMatrixLayoutRowMajor);
      barrier();
      for (uint e = gl_SubgroupInvocationID; e < TM * TN / 4; e += SG) {
        const uint m = m0 + subgroup_row() + i * TM + e / (TN / 4);
        const uint n = n0 + subgroup_column() + j * TN + e % (TN / 4) * 4;
        if (m < p.m && n < p.n) store(c0 + m * p.ldc + n, n, p.alpha * sums[part + e]);
      }
      barrier();
    }
  }
}

void main() {
  const uint batch = gl_WorkGroupID.z / p.splits, k_begin = gl_WorkGroupID.z % p.splits * p.k_split;
  const uint k_end = min(k_begin + p.k_split, p.k);
  const uint a0 = p.a_offset + batch * p.a_batch, b0 = p.b_offset + batch * p.b_batch;
  const uint m0 = gl_WorkGroupID.x * BM, n0 = gl_WorkGroupID.y * BN;
  [[unroll]] for (uint i = 0; i < CM * CN; i++) acc[i] = coopmat<float, gl_ScopeSubgroup, TM, TN, gl_MatrixUseAccumulator>(0.0);
  fetch(a0, b0, m0, n0, k_begin, k_end);
  for (uint k0 = k_begin; k0 < k_end; k0 += BK) {
    keep();
    barrier();
    if (k0 + BK < k_end) fetch(a0, b0, m0, n0, k0 + BK, k_end);
    multiply();
    barrier();
  }
  store_all(m0, n0);
#ifndef BF16
  if (saturated != 0) atomicAdd(all_saturated[0], saturated);
#endif
}
