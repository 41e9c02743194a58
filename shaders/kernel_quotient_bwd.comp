#version 450
// d num = dy / max(den, eps); d den = -(dy . y) / den where den wasn't clamped; the padding gets zeros.
#extension GL_GOOGLE_include_directive : require
#include "kernel_regression.args.h"
#include "nan.glsl"
#include "row.glsl"
layout(set = 0, binding = 0) uniform samplerBuffer Y;
layout(set = 0, binding = 1) uniform samplerBuffer Den;
layout(set = 0, binding = 2) uniform samplerBuffer DY;
layout(set = 0, binding = 3) writeonly buffer DX { vec4 dx[]; };
layout(push_constant) uniform Push { KernelQuotientArgs a; };

void main() {
  const uint row = group_1d();
  if (row >= a.rows) return;
  const uint units = UNITS(a.cols), width = UNITS(a.width);
  const float den = LOAD1(Den, row), clamped = keep_nan(den, max(den, a.eps));
  vec4 products = vec4(0);
  for (uint c = row_lane(); c < units; c += LANES) products += LOAD(Y, row * units + c) * LOAD(DY, row * units + c);
  const float along = row_sum(products);
  for (uint c = row_lane(); c < width; c += LANES) {
    vec4 v = vec4(0);
    if (c < units) v = LOAD(DY, row * units + c) / clamped;
    if (c == units && den >= a.eps) v.x = -along / clamped;
    STORE(dx, row * width + c, v);
  }
}
