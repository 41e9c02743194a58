#version 450
// Rows of scores become probabilities in place, and the log-sum-exp of every row is kept; a row without keys becomes zeros.
// WIDTH invocations share a row. simd: WIDTH is the subgroup size, reductions are shuffles; shared: through shared memory.
//@variant simd SIMD=1
//@variant shared
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#ifdef SIMD
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_shuffle : require
#endif
#include "attention.args.h"
#include "index.glsl"

layout(local_size_x_id = 0) in;
layout(constant_id = 0) const uint LOCAL = 128;
layout(constant_id = 1) const uint WIDTH = 32;
layout(constant_id = 2) const uint FLAGS = 0;

layout(set = 0, binding = 0) uniform samplerBuffer S;
layout(set = 0, binding = 1) uniform samplerBuffer Keep;
layout(set = 0, binding = 2) uniform samplerBuffer Bias;
layout(set = 0, binding = 3) writeonly buffer P { vec4 p[]; };  // the memory of S
layout(set = 0, binding = 4) writeonly buffer Lse { float lse[]; };
layout(push_constant) uniform Push { AttentionSlabArgs a; };

#include "attention_scores.glsl"

#ifdef SIMD
// Full subgroups: a row is one of them.
uint lane_of_row() { return gl_SubgroupInvocationID; }
uint row_in_group() { return gl_SubgroupID; }
float row_max(float x) {
  [[unroll]] for (uint m = 1; m < WIDTH; m *= 2) x = max(x, subgroupShuffle(x, gl_SubgroupInvocationID ^ m));
  return x;
}
float row_sum(float x) {
  [[unroll]] for (uint m = 1; m < WIDTH; m *= 2) x += subgroupShuffle(x, gl_SubgroupInvocationID ^ m);
  return x;
}
#else
shared float exchange[LOCAL];
uint lane_of_row() { return gl_LocalInvocationIndex % WIDTH; }
uint row_in_group() { return gl_LocalInvocationIndex / WIDTH; }
float neighbour(float x, uint m) {
  barrier();
  exchange[gl_LocalInvocationIndex] = x;
  barrier();
  return exchange[gl_LocalInvocationIndex ^ m];
}
float row_max(float x) {
  for (uint m = 1; m < WIDTH; m *= 2) x = max(x, neighbour(x, m));
  return x;
}
float row_sum(float x) {
  for (uint m = 1; m < WIDTH; m *= 2) x += neighbour(x, m);
  return x;
}
#endif

float fold(vec4 x) { return (x.x + x.y) + (x.z + x.w); }

void main() {
  const uint lane = lane_of_row(), r = group_1d() * (LOCAL / WIDTH) + row_in_group();
  const bool inside = r < a.total_rows;
  const Row row = row_of(min(r, a.total_rows - 1));
  vec4 best = vec4(kDropped);
  for (uint k = lane; k < a.ld4; k += WIDTH) best = max(best, scores(row, k));
  const float m = row_max(max(max(best.x, best.y), max(best.z, best.w)));
  vec4 partial = vec4(0);
  for (uint k = lane; k < a.ld4; k += WIDTH) partial += weights(scores(row, k), m);
  const float sum = row_sum(fold(partial));
  if (!inside) return;
  const float scale = sum > 0.0 ? 1.0 / sum : 0.0;
  for (uint k = lane; k < a.ld4; k += WIDTH) p[row.s + k] = scale * weights(scores(row, k), m);
  if (lane == 0) lse[row.bh * a.nq + row.q] = sum > 0.0 ? m + log(sum) : 0.0;
}
