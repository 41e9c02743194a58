// Each pixel becomes 2 x 2; backward adds the four.
//@variant vec4 VEC=4
//@variant scalar VEC=1
//@variant vec4_bwd VEC=4 BACKWARD=1
//@variant scalar_bwd VEC=1 BACKWARD=1
#version 450
#extension GL_GOOGLE_include_directive : require
#include "upsample_nearest2.args.h"
#include "channels.glsl"
#include "index.glsl"

layout(local_size_x_id = 0) in;
layout(constant_id = 0) const uint LOCAL = 256;
layout(set = 0, binding = 0) uniform samplerBuffer X;
layout(set = 0, binding = 1, std430) writeonly buffer Y { UNIT y[]; };
layout(push_constant) uniform Push { UpsampleArgs a; };

// Rows of all images follow one another, and twice as many rows of twice the width in the larger one.
void main() {
  uint i = group_1d() * LOCAL + gl_LocalInvocationIndex;
  if (i >= a.count) return;
  uint u = i % a.units, pixel = i / a.units;
#ifdef BACKWARD
  uint row = pixel / a.width, column = pixel % a.width, wide = 2 * a.width * a.units;
  uint at = 2 * row * wide + 2 * column * a.units + u;
  y[i] = LOAD(X, at) + LOAD(X, at + a.units) + LOAD(X, at + wide) + LOAD(X, at + wide + a.units);
#else
  uint row = pixel / (2 * a.width), column = pixel % (2 * a.width);
  y[i] = LOAD(X, (row / 2 * a.width + column / 2) * a.units + u);
#endif
}
