#version 450
// delta = row sums of dO * O: what every probability of the row loses in the softmax's backward.
#extension GL_GOOGLE_include_directive : require
#include "attention.args.h"
#include "index.glsl"

layout(local_size_x_id = 0) in;
layout(constant_id = 0) const uint LOCAL = 256;

layout(set = 0, binding = 0) uniform samplerBuffer O;
layout(set = 0, binding = 1) uniform samplerBuffer Do;
layout(set = 0, binding = 2) writeonly buffer Delta { float delta[]; };
layout(push_constant) uniform Push { AttentionDeltaArgs a; };

void main() {
  const uint r = group_1d() * LOCAL + gl_LocalInvocationIndex;
  if (r >= a.rows) return;
  vec4 sum = vec4(0);
  for (uint i = r * a.d4; i < (r + 1) * a.d4; i++) sum += texelFetch(O, int(i)) * texelFetch(Do, int(i));
  delta[r] = (sum.x + sum.y) + (sum.z + sum.w);
}
