// y = f(x scale + shift), f identity or SiLU; backward: dx = dz D0 + x D1 + D2.
//@variant vec4 VEC=4
//@variant scalar VEC=1
//@variant vec4_bwd VEC=4 BACKWARD=1
//@variant scalar_bwd VEC=1 BACKWARD=1
#version 450
#extension GL_GOOGLE_include_directive : require
#include "group_norm.args.h"
#include "channels.glsl"
#include "group_norm.glsl"
#include "index.glsl"

layout(local_size_x_id = 0) in;
layout(constant_id = 0) const uint LOCAL = 256;
layout(set = 0, binding = 0) uniform samplerBuffer X;
layout(set = 0, binding = 1) uniform samplerBuffer COEF;
#ifdef BACKWARD
layout(set = 0, binding = 2) uniform samplerBuffer G;
layout(set = 0, binding = 3) uniform samplerBuffer D;
layout(set = 0, binding = 4, std430) writeonly buffer Y { UNIT y[]; };
#else
layout(set = 0, binding = 2, std430) writeonly buffer Y { UNIT y[]; };
#endif
layout(push_constant) uniform Push { GroupNormArgs a; };

void main() {
  uint units = a.channels / VEC, per_image = a.pixels * units, i = group_1d() * LOCAL + gl_LocalInvocationIndex;
  if (i >= a.batch * per_image) return;
  uint b = i / per_image, u = i % units;
  UNIT x = LOAD(X, i);
#ifdef BACKWARD
  UNIT dz = LOAD(G, i);
  if (a.silu != 0) dz *= silu_derivative(x * LOAD(COEF, (b * 4) * units + u) + LOAD(COEF, (b * 4 + 1) * units + u));
  y[i] = dz * LOAD(D, (b * 3) * units + u) + x * LOAD(D, (b * 3 + 1) * units + u) + LOAD(D, (b * 3 + 2) * units + u);
#else
  UNIT z = x * LOAD(COEF, (b * 4) * units + u) + LOAD(COEF, (b * 4 + 1) * units + u);
  y[i] = a.silu != 0 ? silu(z) : z;
#endif
}
