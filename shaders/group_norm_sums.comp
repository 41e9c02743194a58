// Partial sums over a chunk of pixels, per channel. Forward: (sum, sum of squares) of x - x[first pixel], which keeps the
// squares free of cancellation. Backward: (sum dz, sum dz xhat), dz the gradient before the activation.
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
layout(constant_id = 0) const uint LOCAL = 64;
layout(set = 0, binding = 0) uniform samplerBuffer X;
#ifdef BACKWARD
layout(set = 0, binding = 1) uniform samplerBuffer G;
layout(set = 0, binding = 2) uniform samplerBuffer COEF;
layout(set = 0, binding = 3, std430) writeonly buffer P { UNIT p[]; };
#else
layout(set = 0, binding = 1, std430) writeonly buffer P { UNIT p[]; };
#endif
layout(push_constant) uniform Push { GroupNormArgs a; };

void main() {
  uint units = a.channels / VEC, i = group_1d() * LOCAL + gl_LocalInvocationIndex;
  if (i >= a.batch * a.chunks * units) return;
  uint u = i % units, chunk = (i / units) % a.chunks, b = i / (units * a.chunks);
  uint first = chunk * a.chunk, last = min(first + a.chunk, a.pixels), base = b * a.pixels * units + u;
  UNIT s0 = UNIT(0), s1 = UNIT(0);
#ifdef BACKWARD
  UNIT scale = LOAD(COEF, (b * 4 + 0) * units + u), shift = LOAD(COEF, (b * 4 + 1) * units + u);
  UNIT mean = LOAD(COEF, (b * 4 + 2) * units + u), rstd = LOAD(COEF, (b * 4 + 3) * units + u);
  for (uint n = first; n < last; ++n) {
    UNIT x = LOAD(X, base + n * units), dz = LOAD(G, base + n * units);
    if (a.silu != 0) dz *= silu_derivative(x * scale + shift);
    s0 += dz;
    s1 += dz * (x - mean) * rstd;
  }
#else
  UNIT origin = LOAD(X, base);
  for (uint n = first; n < last; ++n) {
    UNIT d = LOAD(X, base + n * units) - origin;
    s0 += d;
    s1 += d * d;
  }
#endif
  uint out_row = (b * a.chunks + chunk) * 2;
  p[out_row * units + u] = s0;
  p[(out_row + 1) * units + u] = s1;
}
