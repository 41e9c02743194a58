#version 450
// Rows of y = u / (|u| + eps), u = ELU(x) + 1 (or x itself without ELU; without NORM y = u); keeps |u|.
// BACKWARD takes y instead of x: u = y (|u| + eps), and the slope of ELU + 1 is min(u, 1), so x isn't needed.
#extension GL_GOOGLE_include_directive : require
#include "feature_map.args.h"
#include "nan.glsl"
#include "row.glsl"
layout(constant_id = 3) const uint ELU = 1;
layout(constant_id = 4) const uint NORM = 1;
layout(constant_id = 5) const uint BACKWARD = 0;
layout(set = 0, binding = 0) uniform samplerBuffer X;
layout(set = 0, binding = 1) uniform samplerBuffer Norms;
layout(set = 0, binding = 2) uniform samplerBuffer DY;
layout(set = 0, binding = 3) writeonly buffer Out { vec4 result[]; };
layout(set = 0, binding = 4) writeonly buffer Keep { float norms[]; };
layout(push_constant) uniform Push { FeatureMapArgs a; };

vec4 feature(vec4 x) {
  if (ELU == 0) return x;
  // The negative side directly as e^x: (e^x - 1) + 1 would round small features away.
  return keep_nan(x, mix(exp(clamp(x, -80.0, 0.0)), x + 1.0, greaterThan(x, vec4(0))));
}

void forward(uint row, uint base, uint units) {
  float scale = 1;
  if (NORM != 0) {
    vec4 squares = vec4(0);
    for (uint c = row_lane(); c < units; c += LANES) {
      const vec4 u = unit_mask(feature(LOAD(X, base + c)));
      squares += u * u;
    }
    const float norm = sqrt(row_sum(squares));
    if (row_lane() == 0) norms[row] = norm;
    scale = 1 / (norm + a.eps);
  }
  for (uint c = row_lane(); c < units; c += LANES) {
    const vec4 y = feature(LOAD(X, base + c)) * scale;
    STORE(result, base + c, y);
  }
}

void backward(uint row, uint base, uint units) {
  float s = 1, along = 0;
  if (NORM != 0) {
    vec4 products = vec4(0);
    for (uint c = row_lane(); c < units; c += LANES) products += LOAD(X, base + c) * LOAD(DY, base + c);
    const float norm = LOAD1(Norms, row), total = row_sum(products);
    s = norm + a.eps;
    along = norm > 0 ? total / norm : 0;
  }
  for (uint c = row_lane(); c < units; c += LANES) {
    const vec4 y = LOAD(X, base + c);
    vec4 dx = LOAD(DY, base + c) / s - y * along;
    if (ELU != 0) dx *= keep_nan(y, min(y * s, vec4(1)));
    STORE(result, base + c, dx);
  }
}

void main() {
  const uint row = group_1d();
  if (row >= a.rows) return;
  const uint units = UNITS(a.cols);
  if (BACKWARD != 0)
    backward(row, row * units, units);
  else
    forward(row, row * units, units);
}
