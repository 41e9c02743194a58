#version 450
// C = act(alpha op(A) op(B) + bias) with tiles in shared memory: GPUs, and every shape and alignment.
//   nt: A[M, K], B[N, K]   nn: A[M, K], B[K, N]   tn: A[K, M], B[K, N]
// A workgroup computes BM x BN of C in steps of BK; each invocation 4 x 4 of it.
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "linear_activation.glsl"
#include "matmul.args.h"

layout(local_size_x_id = 0) in;
layout(constant_id = 0) const uint LOCAL = 256;  // (BM / 4) * (BN / 4)
layout(constant_id = 1) const uint BM = 64;
layout(constant_id = 2) const uint BN = 64;
layout(constant_id = 3) const uint BK = 16;
layout(constant_id = 4) const uint FORM = 0;      // 0 nt, 1 nn, 2 tn
layout(constant_id = 5) const uint B_FORMAT = 0;  // 0 f32, 1 f16, 2 bf16
layout(constant_id = 6) const uint FLAGS = 0;     // 1 bias, 2 accumulate, 4 also write the pre-activation
layout(constant_id = 7) const uint ACT = 0;

layout(set = 0, binding = 0) readonly buffer A { float a[]; };
layout(set = 0, binding = 1) readonly buffer B { uint b[]; };
layout(set = 0, binding = 2) readonly buffer Bias { float bias[]; };
layout(set = 0, binding = 3) buffer C { float c[]; };
layout(set = 0, binding = 4) writeonly buffer Pre { float pre[]; };
layout(push_constant) uniform Push { MatmulArgs p; };

const uint A_ROW = BM + 4, B_ROW = BN + 4;  // padded against bank conflicts
shared float tile_a[BK * A_ROW];
shared float tile_b[BK * B_ROW];

float load_b(uint i) {
  if (B_FORMAT == 0) return uintBitsToFloat(b[i]);
  const uint half_word = b[i / 2] >> (16 * (i % 2));
  return B_FORMAT == 1 ? unpackHalf2x16(half_word).x : uintBitsToFloat(half_word << 16);
}

void load_tiles(uint a0, uint b0, uint m0, uint n0, uint k0, uint k_end) {
  for (uint i = gl_LocalInvocationIndex; i < BM * BK; i += LOCAL) {
    // Neighbours read neighbouring addresses: along K for nt and nn, along M for tn.
    const uint kk = FORM == 2 ? i / BM : i % BK, mm = FORM == 2 ? i % BM : i / BK;
    const uint k = k0 + kk, m = m0 + mm;
    tile_a[kk * A_ROW + mm] = k < k_end && m < p.m ? a[a0 + (FORM == 2 ? k * p.lda + m : m * p.lda + k)] : 0.0;
  }
  for (uint i = gl_LocalInvocationIndex; i < BN * BK; i += LOCAL) {
    const uint kk = FORM == 0 ? i % BK : i / BN, nn = FORM == 0 ? i / BK : i % BN;
    const uint k = k0 + kk, n = n0 + nn;
    tile_b[kk * B_ROW + nn] = k < k_end && n < p.n ? load_b(b0 + (FORM == 0 ? n * p.ldb + k : k * p.ldb + n)) : 0.0;
  }
}

void main() {
  const uint batch = gl_WorkGroupID.z / p.splits, k_begin = gl_WorkGroupID.z % p.splits * p.k_split;
  const uint k_end = min(k_begin + p.k_split, p.k);
  const uint m0 = gl_WorkGroupID.x * BM, n0 = gl_WorkGroupID.y * BN;
  const uint tm = gl_LocalInvocationIndex / (BN / 4) * 4, tn = gl_LocalInvocationIndex % (BN / 4) * 4;
  float acc[4][4];
  [[unroll]] for (uint i = 0; i < 4; i++) [[unroll]] for (uint j = 0; j < 4; j++) acc[i][j] = 0.0;
  for (uint k0 = k_begin; k0 < k_end; k0 += BK) {
    load_tiles(p.a_offset + batch * p.a_batch, p.b_offset + batch * p.b_batch, m0, n0, k0, k_end);
    barrier();
    [[unroll]] for (uint kk = 0; kk < BK; kk++) {
      float x[4], w[4];
      [[unroll]] for (uint i = 0; i < 4; i++) x[i] = tile_a[kk * A_ROW + tm + i];
      [[unroll]] for (uint j = 0; j < 4; j++) w[j] = tile_b[kk * B_ROW + tn + j];
      [[unroll]] for (uint i = 0; i < 4; i++) [[unroll]] for (uint j = 0; j < 4; j++) acc[i][j] += x[i] * w[j];
    }
    barrier();
  }
  const uint c0 = p.c_offset + gl_WorkGroupID.z * p.c_batch;
  [[unroll]] for (uint i = 0; i < 4; i++) {
    const uint m = m0 + tm + i;
    if (m >= p.m) continue;
    vec4 v = p.alpha * vec4(acc[i][0], acc[i][1], acc[i][2], acc[i][3]);
    [[unroll]] for (uint j = 0; j < 4; j++) {
      const uint n = n0 + tn + j;
      if (n >= p.n) continue;
      if ((FLAGS & 1) != 0) v[j] += bias[n];
      if ((FLAGS & 2) != 0) v[j] += c[c0 + m * p.ldc + n];
      if ((FLAGS & 4) != 0) pre[c0 + m * p.ldc + n] = v[j];
    }
    const vec4 y = linear_activation(ACT, v);
    [[unroll]] for (uint j = 0; j < 4; j++) {
      if (n0 + tn + j < p.n) c[c0 + m * p.ldc + n0 + tn + j] = y[j];
    }
  }
}
