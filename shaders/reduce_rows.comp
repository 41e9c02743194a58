// y[r] = scale * sum of x[r, :], one row an invocation, in order.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "index.glsl"
#include "reduce.args.h"

layout(constant_id = 0) const uint LOCAL = 64;
layout(constant_id = 1) const uint VECTORS = 1;  // rows start at whole vectors
layout(local_size_x_id = 0) in;
layout(set = 0, binding = 0) uniform samplerBuffer X;
layout(set = 0, binding = 1) writeonly buffer Y { float y[]; };
layout(push_constant) uniform Push { ReduceRowsArgs a; };

void main() {
  const uint row = group_1d() * LOCAL + gl_LocalInvocationID.x;
  if (row >= a.rows) return;
  float sum = 0.0;
  uint i = row * a.extent;
  const uint end = i + a.extent;
  if (VECTORS != 0u) {
    vec4 s = vec4(0);
    for (; i + 4u <= end; i += 4u) s += texelFetch(X, int(i >> 2));
    sum = (s.x + s.y) + (s.z + s.w);
  }
  for (; i < end; ++i) sum += texelFetch(X, int(i >> 2))[i & 3u];
  y[row] = sum * a.scale;
}
