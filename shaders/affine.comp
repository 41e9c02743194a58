// y = x * scale + shift
#version 450
#extension GL_GOOGLE_include_directive : require
#include "affine.args.h"
#include "index.glsl"

layout(constant_id = 0) const uint LOCAL = 256;
layout(local_size_x_id = 0) in;
layout(set = 0, binding = 0) uniform samplerBuffer X;
layout(set = 0, binding = 1) writeonly buffer Y { vec4 y[]; };
layout(push_constant) uniform Push { AffineArgs a; };

void main() {
  const uint at = group_1d() * LOCAL + gl_LocalInvocationID.x;
  if (4u * at < a.count) y[at] = texelFetch(X, int(at)) * a.scale + a.shift;
}
