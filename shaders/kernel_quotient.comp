#version 450
// x rows (num, den, ..) -> y = num / max(den, eps), and den as it came.
#extension GL_GOOGLE_include_directive : require
#include "kernel_regression.args.h"
#include "nan.glsl"
#include "row.glsl"
layout(set = 0, binding = 0) uniform samplerBuffer X;
layout(set = 0, binding = 1) writeonly buffer Out { vec4 result[]; };
layout(set = 0, binding = 2) writeonly buffer Den { float den[]; };
layout(push_constant) uniform Push { KernelQuotientArgs a; };

void main() {
  const uint row = group_1d();
  if (row >= a.rows) return;
  const uint units = UNITS(a.cols);
  const float d = LOAD1(X, row * a.width + a.cols);
  if (row_lane() == 0) den[row] = d;
  const float clamped = keep_nan(d, max(d, a.eps));
  for (uint c = row_lane(); c < units; c += LANES) {
    const vec4 y = LOAD(X, row * UNITS(a.width) + c) / clamped;
    STORE(result, row * units + c, y);
  }
}
