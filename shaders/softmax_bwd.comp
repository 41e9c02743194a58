#version 450
// dx = y (dy - sum(dy y)) over rows.
#extension GL_GOOGLE_include_directive : require
#include "row.glsl"
#include "softmax.args.h"
layout(set = 0, binding = 0) uniform samplerBuffer Y;
layout(set = 0, binding = 1) uniform samplerBuffer DY;
layout(set = 0, binding = 2) writeonly buffer DX { vec4 dx[]; };
layout(push_constant) uniform Push { SoftmaxArgs a; };

void main() {
  const uint row = group_1d();
  if (row >= a.rows) return;
  const uint units = UNITS(a.cols), base = row * units;
  vec4 s = vec4(0);
  for (uint c = row_lane(); c < units; c += LANES) s += LOAD(DY, base + c) * LOAD(Y, base + c);
  const float dot_y = row_sum(s);
  for (uint c = row_lane(); c < units; c += LANES) {
    const vec4 v = LOAD(Y, base + c) * (LOAD(DY, base + c) - dot_y);
    STORE(dx, base + c, v);
  }
}
