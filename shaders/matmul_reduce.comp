#version 450
// Adds the partial products of a matmul whose contraction was split, in order of the splits.
#extension GL_GOOGLE_include_directive : require
#include "index.glsl"
#include "matmul.args.h"

layout(local_size_x_id = 0) in;
layout(constant_id = 0) const uint LOCAL = 256;
layout(constant_id = 1) const uint ACCUMULATE = 0;

layout(set = 0, binding = 0) uniform samplerBuffer Partial;  // [splits, stride4]
layout(set = 0, binding = 1) uniform samplerBuffer C0;
layout(set = 0, binding = 2) writeonly buffer C { vec4 c[]; };
layout(push_constant) uniform Push { MatmulReduceArgs p; };

void main() {
  const uint i = group_1d() * LOCAL + gl_LocalInvocationIndex;
  if (i >= p.n4) return;
  vec4 sum = ACCUMULATE != 0 ? texelFetch(C0, int(i)) : vec4(0);
  for (uint s = 0; s < p.splits; s++) sum += texelFetch(Partial, int(s * p.stride4 + i));
  c[i] = sum;
}
