#version 450
//@variant f32
//@variant wide int64 WIDE=1
// dx = y (dy - sum(dy y)) over rows.
#extension GL_GOOGLE_include_directive : require
#include "row.glsl"
#include "softmax.args.h"
layout(set = 0, binding = 0) uniform samplerBuffer Y;
layout(set = 0, binding = 1) uniform samplerBuffer DY;
layout(set = 0, binding = 2) writeonly buffer DX { WIDE_VEC dx[]; };
layout(push_constant) uniform Push { SoftmaxArgs a; };

void main() {
  const uint row = group_1d();
  if (row >= a.rows) return;
  const uint groups = UNITS(a.cols) / WIDTH, base = row * groups;
  vec4 s = vec4(0);
  for (uint c = row_lane(); c < groups; c += LANES) {
    [[unroll]] for (uint k = 0; k < WIDTH; ++k) s += LOAD(DY, (base + c) * WIDTH + k) * LOAD(Y, (base + c) * WIDTH + k);
  }
  const float dot_y = row_sum(s);
  for (uint c = row_lane(); c < groups; c += LANES) {
    vec4 v[WIDTH];
    [[unroll]] for (uint k = 0; k < WIDTH; ++k) {
      const uint i = (base + c) * WIDTH + k;
      v[k] = LOAD(Y, i) * (LOAD(DY, i) - dot_y);
    }
    STORE_GROUP(dx, base + c, v);
  }
}
