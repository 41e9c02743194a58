#version 450
// O = softmax(S) V from the panels of S and V, for Vulkan on a CPU (attention_panel_scores.comp): probabilities are made
// where S is fetched, and divided by their sums at the end. Also the log-sum-exp of every row; a row without keys becomes
// zeros. One workgroup = one subgroup = 16 queries x 64 columns of a head.
#extension GL_GOOGLE_include_directive : require
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_shuffle : require
#extension GL_EXT_control_flow_attributes : require
#include "attention.args.h"
#include "attention_weights.glsl"

layout(local_size_x_id = 0) in;
layout(constant_id = 0) const int SG = 8;  // subgroup size
layout(constant_id = 1) const int MA = 2;  // blocks of SG queries
layout(constant_id = 2) const int NV = 2;  // groups of four columns per lane

layout(set = 0, binding = 0) uniform samplerBuffer S;
layout(set = 0, binding = 1) uniform samplerBuffer V;
layout(set = 0, binding = 2) readonly buffer Most { float most[]; };  // [heads, tiles of keys, queries]
layout(set = 0, binding = 3) writeonly buffer O { vec4 o[]; };
layout(set = 0, binding = 4) writeonly buffer Lse { float lse[]; };
layout(push_constant) uniform Push { AttentionPanelArgs a; };

vec4 acc[SG * MA][NV];
float row_max[MA];  // of query m SG + lane
vec4 row_sum[MA];

vec4 panel_a(int m, int texel) {
  const vec4 w = weights(texelFetch(S, texel), row_max[m]);
  row_sum[m] += w;
  return w;
}
vec4 panel_b(int texel) { return texelFetch(V, texel); }
#include "panel_product.glsl"

void main() {
  const uint lane = gl_LocalInvocationIndex;
  [[unroll]] for (int i = 0; i < SG * MA; i++) [[unroll]] for (int j = 0; j < NV; j++) acc[i][j] = vec4(0);
  [[unroll]] for (int m = 0; m < MA; m++) row_max[m] = kDropped, row_sum[m] = vec4(0);
  const uint block = gl_WorkGroupID.x * uint(MA);
  for (uint t = 0; t < a.key_tiles; t++) {
    [[unroll]] for (int m = 0; m < MA; m++) {
      const uint at = (gl_WorkGroupID.z * a.key_tiles + t) * a.q_blocks + block + uint(m);
      row_max[m] = max(row_max[m], most[at * SG + lane]);
    }
  }
  const uint panel_block = a.k4 * uint(SG), q = gl_WorkGroupID.z * a.q_blocks + block;
  const uint v = gl_WorkGroupID.z * a.d_blocks + gl_WorkGroupID.y * uint(4 * NV);
  panel_product(int(q * panel_block + lane), int(panel_block), int(v * panel_block + lane), int(panel_block), int(a.k4));

  const uint row0 = (a.bh0 + gl_WorkGroupID.z) * a.nq + a.q0;
  [[unroll]] for (int m = 0; m < MA; m++) {
    const float sum = (row_sum[m].x + row_sum[m].y) + (row_sum[m].z + row_sum[m].w), share = sum > 0.0 ? 1.0 / sum : 0.0;
    const uint first = (block + uint(m)) * uint(SG);
    if (gl_WorkGroupID.y == 0 && first + lane < a.rows) lse[row0 + first + lane] = sum > 0.0 ? row_max[m] + log(sum) : 0.0;
    [[unroll]] for (int i = 0; i < SG; i++) {
      const float scale = subgroupShuffle(share, i);
      [[unroll]] for (int j = 0; j < NV; j++) {
        const uint column = (gl_WorkGroupID.y * uint(NV) + uint(j)) * uint(SG) + lane;
        if (first + uint(i) < a.rows && column < a.d4) o[(row0 + first + uint(i)) * a.d4 + column] = scale * acc[m * SG + i][j];
      }
    }
  }
}
