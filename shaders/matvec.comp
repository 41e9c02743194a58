#version 450
// C = act(alpha A B^T + bias) for few rows of A[M, K]: B[N, K] is what has to be read, and is read once, in 16 bytes per
// invocation, neighbours side by side. TX invocations share NR rows of B and every row of A; their sums are added in a tree
// in shared memory, so in a fixed order. K is a multiple of what 16 bytes of a row hold (packed rows: of a block).
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "linear_activation.glsl"
#include "matmul.args.h"
#include "weight_format.glsl"

layout(local_size_x_id = 0) in;
layout(constant_id = 0) const uint LOCAL = 128;
layout(constant_id = 1) const uint TX = 32;  // a power of two
layout(constant_id = 2) const uint NR = 2;
layout(constant_id = 3) const uint M = 1;
layout(constant_id = 4) const uint B_FORMAT = 0;  // weight_format.glsl; packed (packed_format.glsl): ldb and b_offset count texels
layout(constant_id = 5) const uint FLAGS = 0;     // 1 bias, 2 accumulate, 4 also write the pre-activation
layout(constant_id = 6) const uint ACT = 0;

layout(set = 0, binding = 0) readonly buffer A { vec4 a[]; };
layout(set = 0, binding = 1) readonly buffer B { uvec4 b[]; };
layout(set = 0, binding = 2) readonly buffer Bias { float bias[]; };
layout(set = 0, binding = 3) buffer C { float c[]; };
layout(set = 0, binding = 4) writeonly buffer Pre { float pre[]; };
layout(push_constant) uniform Push { MatmulArgs p; };

const uint TY = LOCAL / TX;
#define PACKED_FORMAT B_FORMAT
#define PACKED_WORD(i) b[(i) / 4][(i) % 4]
#include "packed_format.glsl"

const bool PACKED = B_FORMAT >= 3;
const uint UNITS = LOW_BITS == 8 ? 1 : 2;                                              // of packed values at a time
const uint VALUES = B_FORMAT == 0 ? 4 : !PACKED ? 8 : 16 * UNITS;                      // at a time
const uint IN_TEXEL = PACKED ? 1 : VALUES;                                             // of ldb and b_offset
shared float sums[NR * M * LOCAL];

uint row_at[NR];  // texel where a row of B starts
uvec4 raw[NR];
PackedUnit packed[NR * UNITS];
float acc[M * NR];

void load(uint chunk) {
  [[unroll]] for (uint r = 0; r < NR; r++) {
    if (PACKED) {
      [[unroll]] for (uint t = 0; t < UNITS; t++) packed[r * UNITS + t] = packed_unit(4 * row_at[r], p.k, UNITS * chunk + t);
    } else {
      raw[r] = b[row_at[r] + chunk];
    }
  }
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
    row_at[r] = (b0 + min(n0 + r * TY + id / TX, p.n - 1) * p.ldb) / IN_TEXEL;
    [[unroll]] for (uint m = 0; m < M; m++) acc[m * NR + r] = 0.0;
  }
  uint next = lane;
  if (next < chunks) load(next);
  while (next < chunks) {
    const uint chunk = next;
    uvec4 u[NR];
    PackedUnit units[NR * UNITS];
    [[unroll]] for (uint r = 0; r < NR; r++) u[r] = raw[r];
    [[unroll]] for (uint t = 0; t < NR * UNITS; t++) units[t] = packed[t];
    next += TX;
    if (next < chunks) load(next);
    [[unroll]] for (uint q = 0; q < VALUES / 4; q++) {
      const uint group = chunk * (VALUES / 4) + q;
      vec4 w[NR];
      [[unroll]] for (uint r = 0; r < NR; r++) {
        if (PACKED) {
          const PackedUnit v = units[r * UNITS + q / 4];
          w[r] = group_values(group_numbers(v.low[q % 4], v.high, group), unit_scale(v.scale, group / 4));
        } else {
          w[r] = decode_weights(B_FORMAT, u[r], int(q));
        }
      }
      [[unroll]] for (uint m = 0; m < M; m++) {
        const vec4 x = a[(a0 + m * p.lda) / 4 + group];
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
