#version 450
// flash_attention.comp on cooperative matrices: f16 factors, f32 scores, statistics and sums. A subgroup owns TM queries, whose
// row of Q and of the result it keeps in matrices; all subgroups of a workgroup share blocks of BC keys and values in shared
// memory. Where an element of a matrix is, no invocation knows; so scores go through shared memory to the softmax, where LPR
// invocations share a row, and come back as weights; sums are brought to a new maximum by a product with a matrix of factors.
//@variant f16 coopmat,fp16
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#extension GL_KHR_cooperative_matrix : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_shuffle : require
#include "flash_attention.args.h"
#include "factors.glsl"
#include "index.glsl"
#include "nan.glsl"

layout(local_size_x_id = 0) in;
layout(constant_id = 0) const uint LOCAL = 128;
layout(constant_id = 1) const uint SG = 32;  // subgroup size, a multiple of TM
layout(constant_id = 2) const uint TM = 16;
layout(constant_id = 3) const uint TN = 16;
layout(constant_id = 4) const uint TK = 16;
layout(constant_id = 5) const uint D4 = 32;     // head dimension / 4; 4 D4 a multiple of TN and TK
layout(constant_id = 6) const uint BC = 32;     // a multiple of TN and TK
layout(constant_id = 7) const uint FLAGS = 0;   // 1 key mask, 2 causal

layout(set = 0, binding = 0) readonly buffer Q { vec4 q[]; };
layout(set = 0, binding = 1) readonly buffer K { vec4 k[]; };
layout(set = 0, binding = 2) readonly buffer V { vec4 v[]; };
layout(set = 0, binding = 3) readonly buffer Mask { uint mask[]; };
layout(set = 0, binding = 4) writeonly buffer O { vec4 o[]; };
layout(set = 0, binding = 5) writeonly buffer Lse { float lse[]; };
layout(set = 0, binding = 6) buffer Saturated { uint all_saturated[]; };
layout(push_constant) uniform Push { FlashAttentionArgs a; };

#include "flash_attention_mask.glsl"

const uint SUBGROUPS = LOCAL / SG, BR = SUBGROUPS * TM, LPR = SG / TM, D = 4 * D4;
const uint ROW = D4 / 2 + 1;         // of queries, keys and values; padded by 16 bytes against bank conflicts
const uint WEIGHT_ROW = BC / 8 + 1, SCORE_ROW = BC / 4 + 1;
const uint COLUMNS4 = BC / 4 / LPR;  // of an invocation in its row of scores
const uint KEYS_AT = 0, VALUES_AT = BC * ROW, TILE = (2 * BC > BR ? 2 * BC : BR) * ROW;
const uint LOADS = BC * D4 / LOCAL;  // of keys, per invocation
shared uvec4 tile[TILE];  // eight factors each: first the queries, then keys and values
shared uvec4 weights[BR * WEIGHT_ROW];
shared vec4 scores[BR * SCORE_ROW];  // also a factor per row, spread over a matrix, and results on their way out
shared vec4 kept[BC / 4];            // 1 or 0

coopmat<float16_t, gl_ScopeSubgroup, TM, TK, gl_MatrixUseA> query[D / TK];
coopmat<float, gl_ScopeSubgroup, TM, TN, gl_MatrixUseAccumulator> acc[D / TN];

uint lane_row() { return gl_SubgroupInvocationID / LPR; }
uint lane_part() { return gl_SubgroupInvocationID % LPR; }
uint score_at() { return gl_SubgroupID * TM * SCORE_ROW; }
uint weight_at() { return gl_SubgroupID * TM * WEIGHT_ROW; }

void load_queries(uint first, uint count) {
  for (uint i = gl_LocalInvocationIndex; i < BR * D4; i += LOCAL) {
    const uvec2 four = i / D4 < count ? factors(q[first * D4 + i]) : uvec2(0);
    PUT_FACTORS(tile, i / D4 * 2 * ROW + i % D4, four);
  }
  barrier();
  [[unroll]] for (uint c = 0; c < D / TK; c++) {
    coopMatLoad(query[c], tile, gl_SubgroupID * TM * ROW + c * TK / 8, ROW, gl_CooperativeMatrixLayoutRowMajor);
  }
  barrier();
}

void load_keys(uint bh, uint k0, uint count) {
  const uint first = bh * a.nk + k0;
  [[unroll]] for (uint t = 0; t < LOADS; t++) {
    const uint i = t * LOCAL + gl_LocalInvocationIndex, row = i / D4;
    const uvec2 four = row < count ? factors(k[first * D4 + i]) : uvec2(0);
    PUT_FACTORS(tile, 2 * (KEYS_AT + row * ROW) + i % D4, four);
  }
  [[unroll]] for (uint t = 0; t < LOADS; t++) {
    const uint i = t * LOCAL + gl_LocalInvocationIndex, row = i / D4;
    const uvec2 four = row < count ? factors(v[first * D4 + i]) : uvec2(0);
    PUT_FACTORS(tile, 2 * (VALUES_AT + row * ROW) + i % D4, four);
  }
  for (uint i = gl_LocalInvocationIndex; i < BC / 4; i += LOCAL) {
    vec4 x;
    [[unroll]] for (uint e = 0; e < 4; e++) x[e] = 4 * i + e < count && key_in_mask(bh, k0 + 4 * i + e) ? 1.0 : 0.0;
    kept[i] = x;
  }
  barrier();
}

void score_product() {
  for (uint j = 0; j < BC / TN; j++) {
    coopmat<float, gl_ScopeSubgroup, TM, TN, gl_MatrixUseAccumulator> s =
        coopmat<float, gl_ScopeSubgroup, TM, TN, gl_MatrixUseAccumulator>(0.0);
    [[unroll]] for (uint c = 0; c < D / TK; c++) {
      coopmat<float16_t, gl_ScopeSubgroup, TK, TN, gl_MatrixUseB> x;
      coopMatLoad(x, tile, KEYS_AT + j * TN * ROW + c * TK / 8, ROW, gl_CooperativeMatrixLayoutColumnMajor);
      s = coopMatMulAdd(query[c], x, s);
    }
    coopMatStore(s, scores, score_at() + j * TN / 4, SCORE_ROW, gl_CooperativeMatrixLayoutRowMajor);
  }
  subgroupBarrier();
}

// A matrix whose row r is full of the value that the invocations of row r have.
coopmat<float, gl_ScopeSubgroup, TM, TN, gl_MatrixUseAccumulator> spread(float x) {
  subgroupBarrier();
  for (uint c = lane_part(); c < TN / 4; c += LPR) scores[score_at() + lane_row() * (TN / 4) + c] = vec4(x);
  subgroupBarrier();
  coopmat<float, gl_ScopeSubgroup, TM, TN, gl_MatrixUseAccumulator> m;
  coopMatLoad(m, scores, score_at(), TN / 4, gl_CooperativeMatrixLayoutRowMajor);
  return m;
}

float row_max(float x) {
  [[unroll]] for (uint m = 1; m < LPR; m *= 2) x = max(x, subgroupShuffleXor(x, m));
  return x;
}
float row_sum(float x) {
  [[unroll]] for (uint m = 1; m < LPR; m *= 2) x += subgroupShuffleXor(x, m);
  return x;
}

// Scores become weights exp2(s - maximum). Returns the factor that brings what was gathered so far to the new maximum.
float softmax(uint query_index, uint k0, inout float best, inout float sum) {
  const float scale = a.scale * kLog2E;
  const uint column4 = lane_part() * COLUMNS4, at = lane_row() * SCORE_ROW + column4;
  vec4 s[COLUMNS4];
  float top = kDropped;
  [[unroll]] for (uint c = 0; c < COLUMNS4; c++) {
    bvec4 seen = greaterThan(kept[column4 + c], vec4(0));
    if ((FLAGS & 2) != 0) {
      [[unroll]] for (uint e = 0; e < 4; e++) seen[e] = seen[e] && visible(query_index, k0 + 4 * (column4 + c) + e);
    }
    s[c] = mix(vec4(kDropped), scale * scores[score_at() + at + c], seen);
    top = max(max(top, max(s[c].x, s[c].y)), max(s[c].z, s[c].w));
  }
  const float shift = max(best, row_max(top)), old = exp2(max(best - shift, -200.0));
  vec4 part = vec4(0);
  [[unroll]] for (uint c = 0; c < COLUMNS4; c++) {
    const vec4 w = keep_nan(s[c], mix(exp2(max(s[c] - shift, -200.0)), vec4(0), lessThan(s[c], vec4(kDroppedBelow))));
    part += w;
    const uvec2 four = factors_in_range(w);
    PUT_FACTORS(weights, 2 * (weight_at() + lane_row() * WEIGHT_ROW) + column4 + c, four);
  }
  sum = sum * old + row_sum(part.x + part.y + part.z + part.w);
  best = shift;
  return old;
}

void result_product() {
  for (uint c = 0; c < BC / TK; c++) {
    coopmat<float16_t, gl_ScopeSubgroup, TM, TK, gl_MatrixUseA> w;
    coopMatLoad(w, weights, weight_at() + c * TK / 8, WEIGHT_ROW, gl_CooperativeMatrixLayoutRowMajor);
    [[unroll]] for (uint j = 0; j < D / TN; j++) {
      coopmat<float16_t, gl_ScopeSubgroup, TK, TN, gl_MatrixUseB> x;
      coopMatLoad(x, tile, VALUES_AT + c * TK * ROW + j * TN / 8, ROW, gl_CooperativeMatrixLayoutRowMajor);
      acc[j] = coopMatMulAdd(w, x, acc[j]);
    }
  }
}

void store(uint bh, uint q0, float best, float sum) {
  const coopmat<float, gl_ScopeSubgroup, TM, TN, gl_MatrixUseAccumulator> inverse = spread(sum > 0.0 ? 1.0 / sum : 0.0);
  const uint row0 = q0 + gl_SubgroupID * TM;
  [[unroll]] for (uint j = 0; j < D / TN; j++) {
    subgroupBarrier();
    coopMatStore(acc[j] * inverse, scores, score_at(), TN / 4, gl_CooperativeMatrixLayoutRowMajor);
    subgroupBarrier();
    for (uint e = gl_SubgroupInvocationID; e < TM * TN / 4; e += SG) {
      const uint row = row0 + e / (TN / 4);
      if (row < a.nq) o[(bh * a.nq + row) * D4 + j * TN / 4 + e % (TN / 4)] = scores[score_at() + e];
    }
  }
  const uint row = row0 + lane_row();
  if (lane_part() == 0 && row < a.nq) lse[bh * a.nq + row] = sum > 0.0 ? kLn2 * (best + log2(sum)) : 0.0;
}

void main() {
  const uint tiles = (a.nq + BR - 1) / BR, group = group_1d();
  if (group >= tiles * a.batch_heads) return;
  const uint bh = group / tiles, q0 = (tiles - 1 - group % tiles) * BR;  // causal: the longest rows start first
  [[unroll]] for (uint j = 0; j < D / TN; j++) acc[j] = coopmat<float, gl_ScopeSubgroup, TM, TN, gl_MatrixUseAccumulator>(0.0);
  float best = kDropped, sum = 0.0;
  const uint count = min(BR, a.nq - q0);
  load_queries(bh * a.nq + q0, count);
  const uint end = key_end(q0 + count);
  uint counted = saturated;
  for (uint k0 = 0; k0 < end; k0 += BC) {
    load_keys(bh, k0, min(BC, end - k0));
    score_product();
    const float old = softmax(q0 + gl_SubgroupID * TM + lane_row(), k0, best, sum);
    const coopmat<float, gl_ScopeSubgroup, TM, TN, gl_MatrixUseAccumulator> rescale = spread(old);
    [[unroll]] for (uint j = 0; j < D / TN; j++) acc[j] = acc[j] * rescale;
    result_product();
    barrier();
  }
  // Keys and values are counted by the workgroup of the last queries, which see all that any query sees.
  if (group % tiles == 0) counted = saturated;
  if (counted != 0) atomicAdd(all_saturated[0], counted);
  store(bh, q0, best, sum);
}
