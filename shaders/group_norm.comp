// y = f(x scale + shift), f identity or SiLU; backward: dx = dz D0 + x D1 + D2.
//@variant vec4 VEC=4
//@variant scalar VEC=1
//@variant vec4_bwd VEC=4 BACKWARD=1
//@variant scalar_bwd VEC=1 BACKWARD=1
//@variant wide int64 VEC=4 WIDE=1
//@variant wide_bwd int64 VEC=4 WIDE=1 BACKWARD=1
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "group_norm.args.h"
#include "channels.glsl"
#include "group_norm.glsl"
#include "index.glsl"
#include "wide.glsl"

#ifdef WIDE
#define RESULT WIDE_VEC
#else
#define RESULT UNIT
#endif

layout(local_size_x_id = 0) in;
layout(constant_id = 0) const uint LOCAL = 256;
layout(set = 0, binding = 0) uniform samplerBuffer X;
layout(set = 0, binding = 1) uniform samplerBuffer COEF;
#ifdef BACKWARD
layout(set = 0, binding = 2) uniform samplerBuffer G;
layout(set = 0, binding = 3) uniform samplerBuffer D;
layout(set = 0, binding = 4, std430) writeonly buffer Y { RESULT y[]; };
#else
layout(set = 0, binding = 2, std430) writeonly buffer Y { RESULT y[]; };
#endif
layout(push_constant) uniform Push { GroupNormArgs a; };

// What a channel's elements have in common: rows of COEF and D.
struct Channel {
  UNIT scale, shift;
#ifdef BACKWARD
  UNIT d0, d1, d2;
#endif
};

Channel channel(uint b, uint u, uint units) {
  Channel c;
  c.scale = LOAD(COEF, (b * 4) * units + u);
  c.shift = LOAD(COEF, (b * 4 + 1) * units + u);
#ifdef BACKWARD
  c.d0 = LOAD(D, (b * 3) * units + u);
  c.d1 = LOAD(D, (b * 3 + 1) * units + u);
  c.d2 = LOAD(D, (b * 3 + 2) * units + u);
#endif
  return c;
}

UNIT value(uint i, Channel c) {
  const UNIT x = LOAD(X, i), z = x * c.scale + c.shift;
#ifdef BACKWARD
  UNIT dz = LOAD(G, i);
  if (a.silu != 0) dz *= silu_derivative(z);
  return dz * c.d0 + x * c.d1 + c.d2;
#else
  return a.silu != 0 ? silu(z) : z;
#endif
}

void main() {
  const uint units = a.channels / VEC;
#ifdef WIDE
  // A SIMD vector of a CPU takes a chunk of pixels, channel by channel: workgroup x = chunk, y = image.
  const uint groups = units / WIDTH, b = gl_WorkGroupID.y, each = (a.pixels + gl_NumWorkGroups.x - 1) / gl_NumWorkGroups.x;
  const uint first = gl_WorkGroupID.x * each, last = min(first + each, a.pixels);
  for (uint u = gl_LocalInvocationIndex; u < groups; u += LOCAL) {
    Channel c[WIDTH];
    [[unroll]] for (uint k = 0; k < WIDTH; ++k) c[k] = channel(b, u * WIDTH + k, units);
    for (uint n = first; n < last; ++n) {
      const uint i = (b * a.pixels + n) * groups + u;
      vec4 v[WIDTH];
      [[unroll]] for (uint k = 0; k < WIDTH; ++k) v[k] = value(i * WIDTH + k, c[k]);
      STORE_WIDE(y, i, v);
    }
  }
#else
  const uint per_image = a.pixels * units, i = group_1d() * LOCAL + gl_LocalInvocationIndex;
  if (i >= a.batch * per_image) return;
  y[i] = value(i, channel(i / per_image, i % units, units));
#endif
}
