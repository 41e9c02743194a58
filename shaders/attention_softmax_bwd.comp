#version 450
// S becomes the probabilities P = exp(S - lse), dP becomes dS = P (dP - delta), both in place. WIDTH invocations share a row.
#extension GL_GOOGLE_include_directive : require
#include "attention.args.h"
#include "index.glsl"

layout(local_size_x_id = 0) in;
layout(constant_id = 0) const uint LOCAL = 256;
layout(constant_id = 1) const uint WIDTH = 32;
layout(constant_id = 2) const uint FLAGS = 0;

layout(set = 0, binding = 0) uniform samplerBuffer S;
layout(set = 0, binding = 1) uniform samplerBuffer Keep;
layout(set = 0, binding = 2) uniform samplerBuffer Bias;
layout(set = 0, binding = 3) uniform samplerBuffer Dp;
layout(set = 0, binding = 4) readonly buffer Lse { float lse[]; };
layout(set = 0, binding = 5) readonly buffer Delta { float delta[]; };
layout(set = 0, binding = 6) writeonly buffer P { vec4 p[]; };    // the memory of S
layout(set = 0, binding = 7) writeonly buffer Ds { vec4 ds[]; };  // the memory of dP
layout(push_constant) uniform Push { AttentionSlabArgs a; };

#include "attention_scores.glsl"

void main() {
  const uint lane = gl_LocalInvocationIndex % WIDTH;
  const uint r = group_1d() * (LOCAL / WIDTH) + gl_LocalInvocationIndex / WIDTH;
  if (r >= a.total_rows) return;
  const Row row = row_of(r);
  const float l = lse[row.bh * a.nq + row.q], shift = delta[row.bh * a.nq + row.q];
  for (uint k = lane; k < a.ld4; k += WIDTH) {
    const vec4 w = weights(scores(row, k), l), dp = texelFetch(Dp, int(row.s + k));
    // dP in the columns behind nk was never computed and may be anything.
    const vec4 d = mix(w * (dp - shift), vec4(0), equal(w, vec4(0)));
    p[row.s + k] = w;
    ds[row.s + k] = d;
  }
}
