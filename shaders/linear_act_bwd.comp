#version 450
// dz = dy act'(z), z the pre-activation of a linear layer.
#extension GL_GOOGLE_include_directive : require
#include "index.glsl"
#include "linear.args.h"
#include "linear_activation.glsl"

layout(local_size_x_id = 0) in;
layout(constant_id = 0) const uint LOCAL = 256;
layout(constant_id = 1) const uint ACT = 1;

layout(set = 0, binding = 0) uniform samplerBuffer Dy;
layout(set = 0, binding = 1) uniform samplerBuffer Z;
layout(set = 0, binding = 2) writeonly buffer Dz { vec4 dz[]; };
layout(push_constant) uniform Push { LinearActArgs a; };

void main() {
  const uint i = group_1d() * LOCAL + gl_LocalInvocationIndex;
  if (i >= a.n4) return;
  dz[i] = texelFetch(Dy, int(i)) * linear_activation_slope(ACT, texelFetch(Z, int(i)));
}
