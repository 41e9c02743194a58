#version 450
// d = 1 - cosine of the conditioned branches, norms floored at 1e-8. As |x/|x| - y/|y||^2 / 2, which keeps its
// digits when the branches nearly agree.
#extension GL_GOOGLE_include_directive : require
#include "hkr_blend.args.h"
#include "hkr_blend.glsl"
#include "nan.glsl"
layout(set = 0, binding = 3) writeonly buffer Out { float disagreement[]; };
layout(push_constant) uniform Push { HkrBlendArgs a; };

const float kFloor = 1e-8;

void main() {
  const uint row = group_1d();
  if (row >= a.rows) return;
  const uint units = UNITS(a.cols), base = row * units;
  const vec4 c = conditioner();
  vec4 xx = vec4(0), yy = vec4(0);
  for (uint i = row_lane(); i < units; i += LANES) {
    const vec4 x = kernel_at(base + i, c), y = land_at(base + i, c);
    xx += x * x;
    yy += y * y;
  }
  const float x_norm = sqrt(row_sum(xx)), y_norm = sqrt(row_sum(yy));
  const float x_scale = 1 / keep_nan(x_norm, max(x_norm, kFloor));
  const float y_scale = 1 / keep_nan(y_norm, max(y_norm, kFloor));
  vec4 difference = vec4(0), product = vec4(0);
  for (uint i = row_lane(); i < units; i += LANES) {
    const vec4 x = kernel_at(base + i, c) * x_scale, y = land_at(base + i, c) * y_scale;
    difference += (x - y) * (x - y);
    product += x * y;
  }
  const float squares = row_sum(difference), cosine = row_sum(product);
  const bool units_long = x_norm > kFloor && y_norm > kFloor;
  if (row_lane() == 0) disagreement[row] = units_long ? 0.5 * squares : 1 - cosine;
}
