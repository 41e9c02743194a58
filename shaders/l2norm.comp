#version 450
// y = x / max(|x|, eps) over rows. BACKWARD: dx = (dy - u (u . dy)) / |x| with u = x / |x|, or dy / eps below eps.
#extension GL_GOOGLE_include_directive : require
#include "l2norm.args.h"
#include "nan.glsl"
#include "row.glsl"
layout(constant_id = 3) const uint BACKWARD = 0;
layout(set = 0, binding = 0) uniform samplerBuffer X;
layout(set = 0, binding = 1) uniform samplerBuffer DY;
layout(set = 0, binding = 2) writeonly buffer Out { vec4 result[]; };
layout(push_constant) uniform Push { L2NormArgs a; };

void main() {
  const uint row = group_1d();
  if (row >= a.rows) return;
  const uint units = UNITS(a.cols), base = row * units;
  vec4 squares = vec4(0), products = vec4(0);
  for (uint c = row_lane(); c < units; c += LANES) {
    const vec4 x = LOAD(X, base + c);
    squares += x * x;
    if (BACKWARD != 0) products += x * LOAD(DY, base + c);
  }
  const float norm = sqrt(row_sum(squares));
  const float scale = 1 / keep_nan(norm, max(norm, a.eps));
  if (BACKWARD != 0) {
    float along = row_sum(products) * scale * scale;
    if (norm <= a.eps) along = 0;
    for (uint c = row_lane(); c < units; c += LANES) {
      const vec4 v = (LOAD(DY, base + c) - LOAD(X, base + c) * along) * scale;
      STORE(result, base + c, v);
    }
  } else {
    for (uint c = row_lane(); c < units; c += LANES) {
      const vec4 v = LOAD(X, base + c) * scale;
      STORE(result, base + c, v);
    }
  }
}
