#version 450
// dq = scale dS k with dS = P (dO v^T - delta) and P = exp(S - lse): one workgroup per BR queries of a head, keys in blocks.
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "flash_attention.args.h"

layout(set = 0, binding = 0) readonly buffer Q { vec4 q[]; };
layout(set = 0, binding = 1) readonly buffer K { vec4 k[]; };
layout(set = 0, binding = 2) readonly buffer V { vec4 v[]; };
layout(set = 0, binding = 3) readonly buffer Do { vec4 d_o[]; };
layout(set = 0, binding = 4) readonly buffer Mask { uint mask[]; };
layout(set = 0, binding = 5) readonly buffer Lse { float lse[]; };
layout(set = 0, binding = 6) readonly buffer Delta { float delta[]; };  // row sums of dO o
layout(set = 0, binding = 7) writeonly buffer Dq { vec4 dq[]; };
layout(push_constant) uniform Push { FlashAttentionArgs a; };

const uint kQ = 0, kK = 1, kV = 2, kDo = 3;
vec4 fetch(uint tensor, uint at) {
  return tensor == kQ ? q[at] : tensor == kK ? k[at] : tensor == kV ? v[at] : d_o[at];
}

#include "flash_attention.glsl"

float s[TM][TN], ds[TM][TN];
vec4 acc[TM][NV];
float row_lse[TM], row_delta[TM];

void score_gradients(uint bh, uint q0, uint k0) {
  const float scale = a.scale * kLog2E;
  [[unroll]] for (uint j = 0; j < TN; j++) {
    const uint key = k0 + tx() + j * TX;
    const bool kept = key < a.nk && key_in_mask(bh, min(key, a.nk - 1));
    [[unroll]] for (uint i = 0; i < TM; i++) {
      const uint query = q0 + ty() * TM + i;
      const float x = s[i][j] * scale;
      const bool seen = kept && query < a.nq && !(x < kDroppedBelow) && visible(query, key);
      ds[i][j] = seen ? exp2(x - row_lse[i]) * (ds[i][j] - row_delta[i]) : 0.0;
    }
  }
}

void main() {
  const uint tiles = (a.nq + BR - 1) / BR, group = group_1d();
  if (group >= tiles * a.batch_heads) return;
  const uint bh = group / tiles, q0 = (tiles - 1 - group % tiles) * BR;  // causal: the longest rows start first
  const Rows queries = Rows(bh * a.nq + q0, min(BR, a.nq - q0));
  [[unroll]] for (uint i = 0; i < TM; i++) {
    [[unroll]] for (uint n = 0; n < NV; n++) acc[i][n] = vec4(0);
    const uint row = bh * a.nq + min(q0 + ty() * TM + i, a.nq - 1);
    row_lse[i] = kLog2E * lse[row];
    row_delta[i] = delta[row];
  }
  const uint end = key_end(q0 + queries.count);
  for (uint k0 = 0; k0 < end; k0 += BC) {
    const Rows keys = Rows(bh * a.nk + k0, min(BC, end - k0));
    score_product(kQ, queries, kK, keys, s);
    score_product(kDo, queries, kV, keys, ds);
    score_gradients(bh, q0, k0);
    result_product(ds, kK, keys, acc);
  }
  [[unroll]] for (uint i = 0; i < TM; i++) {
    const uint row = q0 + ty() * TM + i;
    [[unroll]] for (uint n = 0; n < NV; n++) {
      const uint c = n * TX + tx();
      if (row < a.nq && c < a.d4) dq[(bh * a.nq + row) * a.d4 + c] = a.scale * acc[i][n];
    }
  }
}
