#version 450
// What attention makes of scores, for Vulkan on a CPU: products of panels (panel_product.glsl) whose results leave as the
// panels of the products that follow. One workgroup = one subgroup = 16 queries x 64 keys of a head.
//   scores:        S = scale Q K^T, masked, and the largest of each row of a tile
//   probabilities: P^T with P = exp(S - lse)
//   gradient:      dS and dS^T with dS = P (dO V^T - delta)
//@variant scores WHAT=0
//@variant probabilities WHAT=1
//@variant gradient WHAT=2
#extension GL_GOOGLE_include_directive : require
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_shuffle : require
#extension GL_EXT_control_flow_attributes : require
#include "attention.args.h"
#include "attention_weights.glsl"

layout(local_size_x_id = 0) in;
layout(constant_id = 0) const int SG = 8;     // subgroup size
layout(constant_id = 1) const int MA = 2;     // blocks of SG queries
layout(constant_id = 2) const int NV = 2;     // groups of four keys per lane
layout(constant_id = 3) const int MASKED = 0;

layout(set = 0, binding = 0) uniform samplerBuffer A;  // Q or dO, along D
layout(set = 0, binding = 1) uniform samplerBuffer B;  // K or V, along D
#if WHAT != 2
layout(set = 0, binding = 2) uniform samplerBuffer Keep;
#else
layout(set = 0, binding = 2) uniform samplerBuffer P;  // P^T
#endif
#if WHAT == 0
layout(set = 0, binding = 3) writeonly buffer Y { vec4 by_query[]; };
layout(set = 0, binding = 4) writeonly buffer Most { float most[]; };  // [heads, tiles of keys, queries]
#else
layout(set = 0, binding = 3) readonly buffer RowTerm { float row_term[]; };  // lse or delta, [B, H, Nq]
layout(set = 0, binding = 4) writeonly buffer Yt { vec4 by_key[]; };
#if WHAT == 2
layout(set = 0, binding = 5) writeonly buffer Y { vec4 by_query[]; };
#endif
#endif
layout(push_constant) uniform Push { AttentionPanelArgs a; };

const int ROWS = SG * MA;
vec4 acc[ROWS][NV];

vec4 panel_a(int m, int texel) { return texelFetch(A, texel); }
vec4 panel_b(int texel) { return texelFetch(B, texel); }
#include "panel_product.glsl"

uint key_group(int j, uint lane) { return (gl_WorkGroupID.y * uint(NV) + uint(j)) * uint(SG) + lane; }

#if WHAT != 2
bvec4 dropped(uint group) {
  bvec4 drop = greaterThanEqual(uvec4(4 * group) + uvec4(0, 1, 2, 3), uvec4(a.nk));
  if (MASKED != 0) {
    const uint batch = (a.bh0 + gl_WorkGroupID.z) / a.heads;
    const bvec4 masked = lessThan(texelFetch(Keep, int(batch * a.ld4 + min(group, a.ld4 - 1))), vec4(0.5));
    drop = bvec4(drop.x || masked.x, drop.y || masked.y, drop.z || masked.z, drop.w || masked.w);
  }
  return drop;
}
#endif

#if WHAT != 1
void store_by_query(uint lane) {
  [[unroll]] for (int j = 0; j < NV; j++) {
    const uint group = key_group(j, lane);
    if (group >= a.k4) continue;
    [[unroll]] for (int i = 0; i < ROWS; i++) {
      const uint block = gl_WorkGroupID.z * a.q_blocks + gl_WorkGroupID.x * uint(MA) + uint(i / SG);
      by_query[(block * a.k4 + group) * SG + uint(i % SG)] = acc[i][j];
    }
  }
}
#endif

#if WHAT != 0
// The texel of P^T and dS^T for queries 4 quad .. 4 quad + 3 of the slab and a key.
uint texel_by_key(uint quad, uint key) {
  return ((gl_WorkGroupID.z * a.k_blocks + key / uint(SG)) * a.q4 + quad) * SG + key % uint(SG);
}

// lse or delta of the lane's query in block m.
float row_term_of(int m, uint lane) {
  const uint row = min((gl_WorkGroupID.x * uint(MA) + uint(m)) * uint(SG) + lane, a.rows - 1);
  return row_term[(a.bh0 + gl_WorkGroupID.z) * a.nq + a.q0 + row];
}

void store_by_key(uint lane) {
  [[unroll]] for (int j = 0; j < NV; j++) {
    const uint key = 4 * key_group(j, lane);
    [[unroll]] for (int i = 0; i < ROWS / 4; i++) {
      const uint quad = gl_WorkGroupID.x * uint(ROWS / 4) + uint(i);
      if (quad >= a.q4) continue;
      // Panels end with zeros: along queries they may be longer than the slab.
      const bvec4 outside = greaterThanEqual(uvec4(4 * quad) + uvec4(0, 1, 2, 3), uvec4(a.rows));
      [[unroll]] for (int r = 0; r < 4; r++) {
        const vec4 y = vec4(acc[4 * i][j][r], acc[4 * i + 1][j][r], acc[4 * i + 2][j][r], acc[4 * i + 3][j][r]);
        by_key[texel_by_key(quad, key + uint(r))] = mix(y, vec4(0), outside);
      }
    }
  }
}
#endif

void main() {
  const uint lane = gl_LocalInvocationIndex;
  [[unroll]] for (int i = 0; i < ROWS; i++) [[unroll]] for (int j = 0; j < NV; j++) acc[i][j] = vec4(0);
  const uint a_block = a.x4 * uint(SG), q = gl_WorkGroupID.z * a.q_blocks + gl_WorkGroupID.x * uint(MA);
  const uint k = gl_WorkGroupID.z * a.k_blocks + gl_WorkGroupID.y * uint(4 * NV);
  panel_product(int(q * a_block + lane), int(a_block), int(k * a_block + lane), int(a_block), int(a.x4));

#if WHAT == 0
  [[unroll]] for (int j = 0; j < NV; j++) {
    const bvec4 drop = dropped(key_group(j, lane));
    [[unroll]] for (int i = 0; i < ROWS; i++) acc[i][j] = mix(a.scale * acc[i][j], vec4(kDropped), drop);
  }
  store_by_query(lane);
  [[unroll]] for (int m = 0; m < MA; m++) {
    float mine = kDropped;  // of query m SG + lane
    [[unroll]] for (int i = 0; i < SG; i++) {
      vec4 best = acc[m * SG + i][0];
      [[unroll]] for (int j = 1; j < NV; j++) best = max(best, acc[m * SG + i][j]);
      const float x = max(max(best.x, best.y), max(best.z, best.w));
      float row = kDropped;
      [[unroll]] for (int l = 0; l < SG; l++) row = max(row, subgroupShuffle(x, l));
      mine = lane == uint(i) ? row : mine;
    }
    const uint at = gl_WorkGroupID.z * a.key_tiles + gl_WorkGroupID.y;
    most[(at * a.q_blocks + gl_WorkGroupID.x * uint(MA) + uint(m)) * SG + lane] = mine;
  }
#else
  float term[MA];
  [[unroll]] for (int m = 0; m < MA; m++) term[m] = row_term_of(m, lane);
  [[unroll]] for (int j = 0; j < NV; j++) {
#if WHAT == 1
    const bvec4 drop = dropped(key_group(j, lane));
    [[unroll]] for (int i = 0; i < ROWS; i++) {
      acc[i][j] = weights(mix(a.scale * acc[i][j], vec4(kDropped), drop), subgroupShuffle(term[i / SG], i % SG));
    }
#else
    [[unroll]] for (int i = 0; i < ROWS / 4; i++) {
      const uint quad = min(gl_WorkGroupID.x * uint(ROWS / 4) + uint(i), a.q4 - 1);
      [[unroll]] for (int r = 0; r < 4; r++) {
        const vec4 p = texelFetch(P, int(texel_by_key(quad, 4 * key_group(j, lane) + uint(r))));
        [[unroll]] for (int e = 0; e < 4; e++) {
          const int row = 4 * i + e;
          acc[row][j][r] = p[e] * (acc[row][j][r] - subgroupShuffle(term[row / SG], row % SG));
        }
      }
    }
#endif
  }
  store_by_key(lane);
#if WHAT == 2
  store_by_query(lane);
#endif
#endif
}
