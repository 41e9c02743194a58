#version 450
// o = softmax(scale q k^T) v by online softmax: one workgroup per BR queries of a head, keys in blocks of BC. Kept for
// backward: the log-sum-exp of every row. Rows that see no key become zeros.
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "flash_attention.args.h"

layout(set = 0, binding = 0) readonly buffer Q { vec4 q[]; };
layout(set = 0, binding = 1) readonly buffer K { vec4 k[]; };
layout(set = 0, binding = 2) readonly buffer V { vec4 v[]; };
layout(set = 0, binding = 3) readonly buffer Mask { uint mask[]; };
layout(set = 0, binding = 4) writeonly buffer O { vec4 o[]; };
layout(set = 0, binding = 5) writeonly buffer Lse { float lse[]; };
layout(push_constant) uniform Push { FlashAttentionArgs a; };

const uint kQ = 0, kK = 1, kV = 2;
vec4 fetch(uint tensor, uint at) { return tensor == kQ ? q[at] : tensor == kK ? k[at] : v[at]; }

#include "flash_attention.glsl"

float s[TM][TN];
vec4 acc[TM][NV];
vec4 best[TM4], sum[TM4];  // row maximum, in units of log2; this invocation's part of the row's sum

void scale_and_mask(uint bh, uint q0, uint k0) {
  const float scale = a.scale * kLog2E;
  [[unroll]] for (uint j = 0; j < TN; j++) {
    const uint key = k0 + tx() + j * TX;
    const bool kept = key < a.nk && key_in_mask(bh, min(key, a.nk - 1));
    [[unroll]] for (uint i = 0; i < TM; i++) {
      s[i][j] = kept && visible(q0 + ty() * TM + i, key) ? s[i][j] * scale : kDropped;
    }
  }
}

// Scores become weights exp2(s - maximum); what was gathered so far is brought to the new maximum.
void update_softmax() {
  vec4 m[TM4];
  [[unroll]] for (uint i = 0; i < TM; i++) {
    float x = s[i][0];
    [[unroll]] for (uint j = 1; j < TN; j++) x = max(x, s[i][j]);
    m[i / 4][i % 4] = x;
  }
  share_with_row(m);
  [[unroll]] for (uint i = 0; i < TM4; i++) {
    m[i] = best[i];
    for (uint x = 0; x < TX; x++) m[i] = max(m[i], shared_by(x, i));
  }
  barrier();
  [[unroll]] for (uint i = 0; i < TM; i++) {
    const float shift = m[i / 4][i % 4], old = exp2(best[i / 4][i % 4] - shift);
    float part = 0.0;
    [[unroll]] for (uint j = 0; j < TN; j++) {
      s[i][j] = s[i][j] < kDroppedBelow ? 0.0 : exp2(s[i][j] - shift);
      part += s[i][j];
    }
    sum[i / 4][i % 4] = sum[i / 4][i % 4] * old + part;
    [[unroll]] for (uint n = 0; n < NV; n++) acc[i][n] *= old;
  }
  [[unroll]] for (uint i = 0; i < TM4; i++) best[i] = m[i];
}

void store(uint bh, uint q0) {
  share_with_row(sum);
  [[unroll]] for (uint i = 0; i < TM4; i++) {
    vec4 x = vec4(0);
    for (uint t = 0; t < TX; t++) x += shared_by(t, i);
    sum[i] = x;
  }
  [[unroll]] for (uint i = 0; i < TM; i++) {
    const uint row = q0 + ty() * TM + i;
    const float total = sum[i / 4][i % 4], inverse = total > 0.0 ? 1.0 / total : 0.0;
    if (row < a.nq) {
      [[unroll]] for (uint n = 0; n < NV; n++) {
        const uint c = n * TX + tx();
        if (c < a.d4) o[(bh * a.nq + row) * a.d4 + c] = inverse * acc[i][n];
      }
      if (tx() == 0) lse[bh * a.nq + row] = total > 0.0 ? kLn2 * (best[i / 4][i % 4] + log2(total)) : 0.0;
    }
  }
}

void main() {
  const uint tiles = (a.nq + BR - 1) / BR, group = group_1d();
  if (group >= tiles * a.batch_heads) return;
  const uint bh = group / tiles, q0 = (tiles - 1 - group % tiles) * BR;  // causal: the longest rows start first
  const Rows queries = Rows(bh * a.nq + q0, min(BR, a.nq - q0));
  [[unroll]] for (uint i = 0; i < TM4; i++) best[i] = vec4(kDropped), sum[i] = vec4(0);
  [[unroll]] for (uint i = 0; i < TM; i++) [[unroll]] for (uint n = 0; n < NV; n++) acc[i][n] = vec4(0);
  const uint end = key_end(q0 + queries.count);
  for (uint k0 = 0; k0 < end; k0 += BC) {
    const Rows keys = Rows(bh * a.nk + k0, min(BC, end - k0));
    score_product(kQ, queries, kK, keys, s);
    scale_and_mask(bh, q0, k0);
    update_softmax();
    result_product(s, kV, keys, acc);
  }
  store(bh, q0);
}
