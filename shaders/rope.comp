#version 450
// x[B, H, N, D] with the pairs (2i, 2i+1) rotated by table[Bt, N, D/2, 2]; INVERSE rotates back (the gradient).
#extension GL_GOOGLE_include_directive : require
layout(constant_id = 0) const uint LOCAL = 64;
layout(constant_id = 1) const uint UNIT = 4;
layout(constant_id = 2) const uint INVERSE = 0;
layout(local_size_x_id = 0) in;
#include "rope.args.h"
#include "rotate.glsl"
layout(set = 0, binding = 0) uniform samplerBuffer X;
layout(set = 0, binding = 1) uniform samplerBuffer Table;
layout(set = 0, binding = 2) writeonly buffer Y { vec4 y[]; };
layout(push_constant) uniform Push { RopeArgs a; };

void main() {
  const uint u = gl_WorkGroupID.x * LOCAL + gl_LocalInvocationIndex;
  if (u >= a.units) return;
  const uint i = (gl_WorkGroupID.z * a.heads + gl_WorkGroupID.y) * a.units + u;
  const vec4 r = LOAD_UNIT(Table, gl_WorkGroupID.z * a.rope_batch * a.units + u);
  const vec4 v = rotate(LOAD_UNIT(X, i), r, INVERSE != 0 ? -1.0 : 1.0);
  STORE_UNIT(y, i, v)
}
