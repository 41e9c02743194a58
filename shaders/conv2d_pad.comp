#version 450
// x[pixels, C] -> [pixels, C rounded up to a multiple of 4], filled up with zeros.
#extension GL_GOOGLE_include_directive : require
#include "conv2d_pad.args.h"
#include "index.glsl"
layout(local_size_x = 256) in;
layout(set = 0, binding = 0, std430) readonly buffer X { float x[]; };
layout(set = 0, binding = 1, std430) writeonly buffer Y { vec4 y[]; };
layout(push_constant) uniform Push { Conv2dPadArgs a; };
void main() {
  const uint i = group_1d() * 256u + gl_LocalInvocationIndex;
  if (i >= a.n) return;
  const uint pixel = i / a.channels4, c = (i - pixel * a.channels4) * 4u;
  vec4 v = vec4(0);
  for (uint k = 0u; k < 4u; ++k) {
    if (c + k < a.channels) v[k] = x[pixel * a.channels + c + k];
  }
  y[i] = v;
}
