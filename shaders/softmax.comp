#version 450
// y = exp(x - max) / sum over rows; entries far below the maximum (and -infinity) become exactly 0.
#extension GL_GOOGLE_include_directive : require
#include "row.glsl"
#include "softmax.args.h"
layout(set = 0, binding = 0) uniform samplerBuffer X;
layout(set = 0, binding = 1) writeonly buffer Y { vec4 y[]; };
layout(push_constant) uniform Push { SoftmaxArgs a; };

// exp without results in the denormal range, which CPUs compute slowly.
vec4 exp_above(vec4 x) { return mix(exp(max(x, vec4(-80))), vec4(0), lessThan(x, vec4(-80))); }

void main() {
  const uint row = group_1d();
  if (row >= a.rows) return;
  const uint units = UNITS(a.cols), base = row * units;
  float top = uintBitsToFloat(0xff800000u);
  for (uint c = row_lane(); c < units; c += LANES) {
    const vec4 x = LOAD(X, base + c);
    top = max(top, VEC4 != 0 ? max(max(x.x, x.y), max(x.z, x.w)) : x.x);
  }
  top = row_max(top);
  vec4 s = vec4(0);
  for (uint c = row_lane(); c < units; c += LANES) s += unit_mask(exp_above(LOAD(X, base + c) - top));
  const float scale = 1 / row_sum(s);
  for (uint c = row_lane(); c < units; c += LANES) {
    const vec4 v = exp_above(LOAD(X, base + c) - top) * scale;
    STORE(y, base + c, v);
  }
}
