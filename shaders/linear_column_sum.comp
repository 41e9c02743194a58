#version 450
// Sums rows of x[rows, columns] in parts: part p (workgroup y) adds rows_per_part rows in order into y[p, :].
// With VECTOR an invocation owns four columns (columns a multiple of 4), else one. With ADD they are added to y.
#extension GL_GOOGLE_include_directive : require
#include "linear.args.h"

layout(local_size_x_id = 0) in;
layout(constant_id = 0) const uint LOCAL = 64;
layout(constant_id = 1) const uint VECTOR = 1;
layout(constant_id = 2) const uint ADD = 0;

layout(set = 0, binding = 0) uniform samplerBuffer X;
layout(set = 0, binding = 1) buffer Y { float y[]; };
layout(push_constant) uniform Push { ColumnSumArgs a; };

void main() {
  const uint width = VECTOR != 0 ? 4 : 1;
  const uint column = (gl_WorkGroupID.x * LOCAL + gl_LocalInvocationIndex) * width;
  if (column >= a.columns) return;
  const uint begin = gl_WorkGroupID.y * a.rows_per_part, end = min(begin + a.rows_per_part, a.rows);
  vec4 sum = vec4(0);
  for (uint r = begin; r < end; r++) {
    const uint i = r * a.columns + column;
    if (VECTOR != 0) {
      sum += texelFetch(X, int(i / 4));
    } else {
      sum.x += texelFetch(X, int(i / 4))[i % 4];
    }
  }
  const uint at = gl_WorkGroupID.y * a.columns + column;
  if (ADD != 0) {
    sum.x += y[at];
    if (VECTOR != 0) sum.yzw += vec3(y[at + 1], y[at + 2], y[at + 3]);
  }
  y[at] = sum.x;
  if (VECTOR != 0) {
    y[at + 1] = sum.y;
    y[at + 2] = sum.z;
    y[at + 3] = sum.w;
  }
}
