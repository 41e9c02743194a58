#version 450
// C = act(alpha A B^T + bias) for few rows of A[M, K]: B[N, K] is what has to be read, and is read once, in 16 bytes per
// invocation, neighbours side by side. TX invocations share NR rows of B and every row of A; their sums are added in a tree
// in shared memory, so in a fixed order. K is a multiple of what 16 bytes of a row hold (packed rows: of a block).
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "linear_activation.glsl"
#include "matmul.args.h"
#include "packed_format.glsl"
#include "weight_format.glsl"

layout(local_size_x_id = 0) in;
layout(constant_id = 0) const uint LOCAL = 128;
layout(constant_id = 1) const uint TX = 32;  // a power of two
layout(constant_id = 2) const uint NR = 2;
layout(constant_id = 3) const uint M = 1;
layout(constant_id = 4) const uint B_FORMAT = 0;  // weight_format.glsl, packed_format.glsl; packed: ldb and b_offset count texels
layout(constant_id = 5) const uint FLAGS = 0;     // 1 bias, 2 accumulate, 4 also write the pre-activation
layout(constant_id = 6) const uint ACT = 0;

layout(set = 0, binding = 0) readonly buffer A { vec4 a[]; };
layout(set = 0, binding = 1) readonly buffer B { uvec4 b[]; };
layout(set = 0, binding = 2) readonly buffer Bias { float bias[]; };
layout(set = 0, binding = 3) buffer C { float c[]; };
layout(set = 0, binding = 4) writeonly buffer Pre { float pre[]; };
layout(push_constant) uniform Push { MatmulArgs p; };

const uint TY = LOCAL / TX;
const uint VALUES = B_FORMAT == 0 ? 4 : B_FORMAT < 3 ? 8 : B_FORMAT == 6 ? 32 : 16;  // of a texel of B
const uint UNIT = B_FORMAT < 3 ? VALUES : 1;                                           // of ldb and b_offset, per texel
shared float sums[NR * M * LOCAL];

uint row_at[NR];          // texel where a row of B starts
uvec4 raw[NR], head[NR];  // values, and the texel with their scales
float acc[M * NR];

void load(uint chunk) {
  uint at = chunk, head_at = 0;
  if (B_FORMAT == 5) {
    const uint group = chunk / 16;
    at = 17 * group + chunk % 16, head_at = 17 * group + 2 * min(8, p.k / 32 - 8 * group);
  } else if (B_FORMAT == 6) {
    head_at = 9 * (chunk / 8), at = head_at + 1 + chunk % 8;
  }
  [[unroll]] for (uint r = 0; r < NR; r++) {
    raw[r] = b[row_at[r] + at];
    if (B_FORMAT >= 5) head[r] = b[row_at[r] + head_at];
  }
}

// Four columns of chunk `chunk`: the texel of A that they meet, and their values.
uint column4(uint chunk, uint q) {
  if (B_FORMAT == 6) return 64 * (chunk / 8) + 16 * (chunk % 8 / 2) + 4 * (chunk % 2) + 8 * (q / 4) + q % 4;
  return chunk * (VALUES / 4) + q;
}
vec4 values(uvec4 u, uvec4 scales, uint chunk, uint q) {
  if (B_FORMAT < 3) return decode_weights(int(B_FORMAT), u, int(q));
  if (B_FORMAT < 5) return byte_values(int(B_FORMAT), u[q]);
  if (B_FORMAT == 5) return q8_scale(scales[chunk % 16 / 4], chunk / 2) * int8_values(u[q]);
  const vec2 affine = q4_affine(unpackHalf2x16(scales.x), q4_scales(scales.y, scales.z, scales.w), chunk % 8 / 2 * 2 + q / 4);
  return affine.x * nibble_values(u[q % 4] >> (4 * (q / 4))) - affine.y;
}

void store(uint m, uint n, float v) {
  const uint at = p.c_offset + gl_WorkGroupID.z * p.c_batch + m * p.ldc + n;
  v *= p.alpha;
  if ((FLAGS & 1) != 0) v += bias[n];
  if ((FLAGS & 2) != 0) v += c[at];
  if ((FLAGS & 4) != 0) pre[at] = v;
  c[at] = linear_activation(ACT, vec4(v)).x;
}

void main() {
  const uint id = gl_LocalInvocationIndex, lane = id % TX, n0 = gl_WorkGroupID.y * TY * NR, chunks = p.k / VALUES;
  const uint a0 = p.a_offset + gl_WorkGroupID.z * p.a_batch, b0 = p.b_offset + gl_WorkGroupID.z * p.b_batch;
  [[unroll]] for (uint r = 0; r < NR; r++) {
    row_at[r] = (b0 + min(n0 + r * TY + id / TX, p.n - 1) * p.ldb) / UNIT;
    [[unroll]] for (uint m = 0; m < M; m++) acc[m * NR + r] = 0.0;
  }
  uint next = lane;
  if (next < chunks) load(next);
  while (next < chunks) {
    const uint chunk = next;
    uvec4 u[NR], scales[NR];
    [[unroll]] for (uint r = 0; r < NR; r++) u[r] = raw[r], scales[r] = head[r];
    next += TX;
    if (next < chunks) load(next);
    [[unroll]] for (uint q = 0; q < VALUES / 4; q++) {
      const uint at = column4(chunk, q);
      vec4 w[NR];
      [[unroll]] for (uint r = 0; r < NR; r++) w[r] = values(u[r], scales[r], chunk, q);
      [[unroll]] for (uint m = 0; m < M; m++) {
        const vec4 x = a[(a0 + m * p.lda) / 4 + at];
        [[unroll]] for (uint r = 0; r < NR; r++) acc[m * NR + r] += dot(x, w[r]);
      }
    }
  }
  [[unroll]] for (uint v = 0; v < M * NR; v++) sums[v * LOCAL + id] = acc[v];
  barrier();
  for (uint half_way = TX / 2; half_way > 0; half_way /= 2) {
    if (lane < half_way) {
      [[unroll]] for (uint v = 0; v < M * NR; v++) sums[v * LOCAL + id] += sums[v * LOCAL + id + half_way];
    }
    barrier();
  }
  for (uint i = id; i < M * NR * TY; i += LOCAL) {
    const uint m = i / (NR * TY), column = i % (NR * TY);
    if (n0 + column < p.n) store(m, n0 + column, sums[(m * NR + column / TY) * LOCAL + column % TY * TX]);
  }
}
