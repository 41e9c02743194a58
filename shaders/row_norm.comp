#version 450
// y = (x - mean) * rstd * weight + bias over rows, with the variance of the differences (CENTER) or the mean
// square of x (RMS norm). ADD_ONE: the weight is 1 + W (modulation). Mean and rstd are kept for backward.
#extension GL_GOOGLE_include_directive : require
#include "row.glsl"
#include "row_norm.args.h"
layout(constant_id = 3) const uint CENTER = 1;
layout(constant_id = 4) const uint HAS_WEIGHT = 0;
layout(constant_id = 5) const uint HAS_BIAS = 0;
layout(constant_id = 6) const uint ADD_ONE = 0;
layout(set = 0, binding = 0) uniform samplerBuffer X;
layout(set = 0, binding = 1) uniform samplerBuffer W;
layout(set = 0, binding = 2) uniform samplerBuffer B;
layout(set = 0, binding = 3) writeonly buffer Y { vec4 y[]; };
layout(set = 0, binding = 4) writeonly buffer Stats { vec2 stats[]; };
layout(push_constant) uniform Push { RowNormArgs a; };

void main() {
  const uint row = group_1d();
  if (row >= a.rows) return;
  const uint units = UNITS(a.cols), base = row * units;
  const float n = float(a.cols);
  float mean = 0;
  if (CENTER != 0) {
    vec4 s = vec4(0);
    for (uint c = row_lane(); c < units; c += LANES) s += LOAD(X, base + c);
    mean = row_sum(s) / n;
  }
  vec4 q = vec4(0);
  for (uint c = row_lane(); c < units; c += LANES) {
    const vec4 d = unit_mask(LOAD(X, base + c) - mean);
    q += d * d;
  }
  const float rstd = inversesqrt(row_sum(q) / n + a.eps);
  if (row_lane() == 0) stats[row] = vec2(mean, rstd);
  const uint vector = row / a.rows_per_vector;
  const uint weight_base = UNITS(vector * a.weight_stride), bias_base = UNITS(vector * a.bias_stride);
  for (uint c = row_lane(); c < units; c += LANES) {
    vec4 v = (LOAD(X, base + c) - mean) * rstd;
    if (HAS_WEIGHT != 0) v *= LOAD(W, weight_base + c) + float(ADD_ONE);
    if (HAS_BIAS != 0) v += LOAD(B, bias_base + c);
    STORE(y, base + c, v);
  }
}
