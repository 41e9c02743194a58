#version 450
// dk = scale dS^T q and dv = P^T dO with P = exp(S - lse), dS = P (dO v^T - delta): one workgroup per BR keys of a head,
// queries in blocks, so that every sum has one owner and a fixed order.
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
layout(set = 0, binding = 7) writeonly buffer Dk { vec4 dk[]; };
layout(set = 0, binding = 8) writeonly buffer Dv { vec4 dv[]; };
layout(push_constant) uniform Push { FlashAttentionArgs a; };

const uint kQ = 0, kK = 1, kV = 2, kDo = 3;
vec4 fetch(uint tensor, uint at) {
  return tensor == kQ ? q[at] : tensor == kK ? k[at] : tensor == kV ? v[at] : d_o[at];
}

#include "flash_attention.glsl"

const bool kWantsDk = (FLAGS & 4) != 0, kWantsDv = (FLAGS & 8) != 0;

float p[TM][TN], ds[TM][TN];  // [key][query]
vec4 acc_k[TM][NV], acc_v[TM][NV];
bool kept[TM];

void probabilities(uint bh, uint k0, uint q0) {
  const float scale = a.scale * kLog2E;
  [[unroll]] for (uint j = 0; j < TN; j++) {
    const uint query = q0 + tx() + j * TX;
    const float shift = kLog2E * lse[bh * a.nq + min(query, a.nq - 1)];
    [[unroll]] for (uint i = 0; i < TM; i++) {
      const float x = p[i][j] * scale;
      const bool seen = kept[i] && query < a.nq && !(x < kDroppedBelow) && visible(query, k0 + ty() * TM + i);
      p[i][j] = seen ? exp2(x - shift) : 0.0;
    }
  }
}

void score_gradients(uint bh, uint q0) {
  [[unroll]] for (uint j = 0; j < TN; j++) {
    const float shift = delta[bh * a.nq + min(q0 + tx() + j * TX, a.nq - 1)];
    [[unroll]] for (uint i = 0; i < TM; i++) ds[i][j] = p[i][j] != 0.0 ? p[i][j] * (ds[i][j] - shift) : 0.0;
  }
}

void main() {
  const uint tiles = (a.nk + BR - 1) / BR, group = group_1d();
  if (group >= tiles * a.batch_heads) return;
  const uint bh = group / tiles, k0 = group % tiles * BR;
  const Rows keys = Rows(bh * a.nk + k0, min(BR, a.nk - k0));
  [[unroll]] for (uint i = 0; i < TM; i++) {
    [[unroll]] for (uint n = 0; n < NV; n++) acc_k[i][n] = vec4(0), acc_v[i][n] = vec4(0);
    const uint key = k0 + ty() * TM + i;
    kept[i] = key < a.nk && key_in_mask(bh, min(key, a.nk - 1));
  }
  for (uint q0 = first_query(k0); q0 < a.nq; q0 += BC) {
    const Rows queries = Rows(bh * a.nq + q0, min(BC, a.nq - q0));
    score_product(kK, keys, kQ, queries, p);
    probabilities(bh, k0, q0);
    if (kWantsDv) result_product(p, kDo, queries, acc_v);
    if (kWantsDk) {
      score_product(kV, keys, kDo, queries, ds);
      score_gradients(bh, q0);
      result_product(ds, kQ, queries, acc_k);
    }
  }
  [[unroll]] for (uint i = 0; i < TM; i++) {
    const uint row = k0 + ty() * TM + i;
    [[unroll]] for (uint n = 0; n < NV; n++) {
      const uint c = n * TX + tx(), at = (bh * a.nk + row) * a.d4 + c;
      if (row >= a.nk || c >= a.d4) continue;
      if (kWantsDk) dk[at] = a.scale * acc_k[i][n];
      if (kWantsDv) dv[at] = acc_v[i][n];
    }
  }
}
