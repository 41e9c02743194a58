#version 450
// An operand of a matrix product in the order in which matmul_simd.comp's panel form fetches it: blocks of SG rows, in a
// block [K / 4][SG] texels of four consecutive k, decoded to f32, zero behind K.
//   rows: X[rows, K]   columns: X[K, rows]
//@variant rows
//@variant columns COLUMNS=1
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "matmul_panel.args.h"
#include "weight_format.glsl"

layout(local_size_x_id = 0) in;
layout(constant_id = 0) const uint LOCAL = 256;
layout(constant_id = 1) const uint SG = 8;
layout(constant_id = 2) const uint EACH = 1;  // consecutive rows of a lane, one per block: 1 for A, 4 for B
layout(constant_id = 3) const uint FORMAT = 0;

layout(set = 0, binding = 0) uniform usamplerBuffer X;
layout(set = 0, binding = 1) writeonly buffer Y { vec4 y[]; };
layout(push_constant) uniform Push { MatmulPanelArgs a; };

const int GROUPS = FORMAT == 0 ? 1 : 2;  // of four elements in a texel
const uint PER_TEXEL = 4 * uint(GROUPS);

vec4 keep(vec4 v, uint k) { return mix(v, vec4(0), greaterThanEqual(uvec4(k) + uvec4(0, 1, 2, 3), uvec4(a.k))); }

void put(uint block, uint lane, uint t, vec4 v) { y[gl_WorkGroupID.z * a.y_batch4 + (block * a.k4 + t) * SG + lane] = v; }

void main() {
  const uint lane = gl_LocalInvocationIndex % SG, step = gl_WorkGroupID.x * (LOCAL / SG) + gl_LocalInvocationIndex / SG;
  const uint x0 = (a.offset + gl_WorkGroupID.z * a.batch) / PER_TEXEL, ld = a.ld / PER_TEXEL;
#ifndef COLUMNS
  const uint block = gl_WorkGroupID.y;
  if (step * uint(GROUPS) >= a.k4) return;
  const uint row = block / EACH * (EACH * SG) + lane * EACH + block % EACH;
  const uvec4 raw = texelFetch(X, int(x0 + min(row, a.rows - 1) * ld + step));
  [[unroll]] for (int g = 0; g < GROUPS; g++) {
    const uint t = step * uint(GROUPS) + uint(g);
    if (t < a.k4) put(block, lane, t, keep(decode_weights(FORMAT, raw, g), 4 * t));
  }
#else
  if (step >= a.k4) return;
  const uint texel = gl_WorkGroupID.y * SG + lane;
  uvec4 raw[4];
  [[unroll]] for (uint q = 0; q < 4; q++) {
    raw[q] = texelFetch(X, int(x0 + min(4 * step + q, a.k - 1) * ld + min(texel, (a.rows - 1) / PER_TEXEL)));
  }
  [[unroll]] for (int g = 0; g < GROUPS; g++) {
    vec4 v[4];
    [[unroll]] for (int q = 0; q < 4; q++) v[q] = decode_weights(FORMAT, raw[q], g);
    [[unroll]] for (int r = 0; r < 4; r++) {
      const uint row = texel * PER_TEXEL + uint(4 * g + r);
      const uint block = row / (EACH * SG) * EACH + row % EACH;
      if (block < a.blocks) put(block, row / EACH % SG, step, keep(vec4(v[0][r], v[1][r], v[2][r], v[3][r]), 4 * step));
    }
  }
#endif
}
