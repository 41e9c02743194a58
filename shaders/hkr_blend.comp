#version 450
// y = x + a (l - x) with a = alpha_max s, s = sigmoid(alpha + gamma (g - 1/2)), g = min(d / mean d, 3) / 3; without
// ADAPTIVE s = sigmoid(alpha). Keeps s.
#extension GL_GOOGLE_include_directive : require
#include "hkr_blend.args.h"
#include "hkr_blend.glsl"
#include "nan.glsl"
layout(constant_id = 4) const uint ADAPTIVE = 1;
layout(set = 0, binding = 3) uniform samplerBuffer Alpha;
layout(set = 0, binding = 4) uniform samplerBuffer Disagreement;
layout(set = 0, binding = 5) uniform samplerBuffer Mean;
layout(set = 0, binding = 6) writeonly buffer Out { vec4 result[]; };
layout(set = 0, binding = 7) writeonly buffer Gate { float gate[]; };
layout(push_constant) uniform Push { HkrBlendArgs a; };

void main() {
  const uint row = group_1d();
  if (row >= a.rows) return;
  const uint units = UNITS(a.cols), base = row * units;
  const vec4 c = conditioner();
  float logit = texelFetch(Alpha, 0).x;
  if (ADAPTIVE != 0) {
    const float mean = LOAD1(Mean, row / a.tokens), d = LOAD1(Disagreement, row), share = d / keep_nan(mean, max(mean, 1e-6));
    logit += a.gamma * (keep_nan(share, min(share, 3.0)) / 3.0 - 0.5);
  }
  const float s = keep_nan(logit, 1 / (1 + exp(-clamp(logit, -80.0, 80.0))));
  if (row_lane() == 0) gate[row] = s;
  for (uint i = row_lane(); i < units; i += LANES) {
    const vec4 x = kernel_at(base + i, c);
    const vec4 y = x + a.alpha_max * s * (land_at(base + i, c) - x);
    STORE(result, base + i, y);
  }
}
