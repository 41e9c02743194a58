#version 450
//@variant f32
//@variant wide int64 WIDE=1
// y = exp(x - max) / sum over rows; entries far below the maximum (and -infinity) become exactly 0.
#extension GL_GOOGLE_include_directive : require
#include "nan.glsl"
#include "row.glsl"
#include "softmax.args.h"
layout(set = 0, binding = 0) uniform samplerBuffer X;
layout(set = 0, binding = 1) writeonly buffer Y { WIDE_VEC y[]; };
layout(push_constant) uniform Push { SoftmaxArgs a; };

// exp without results in the denormal range, which CPUs compute slowly.
vec4 exp_above(vec4 x) { return keep_nan(x, mix(exp(max(x, vec4(-80))), vec4(0), lessThan(x, vec4(-80)))); }

void main() {
  const uint row = group_1d();
  if (row >= a.rows) return;
  const uint groups = UNITS(a.cols) / WIDTH, base = row * groups;
  // Maximum and sum in one pass: the sum so far is scaled down when the maximum rises.
  float most = -3.0e38, s = 0;
  for (uint c = row_lane(); c < groups; c += LANES) {
    vec4 v[WIDTH];
    float top = most;
    [[unroll]] for (uint k = 0; k < WIDTH; ++k) {
      v[k] = LOAD(X, (base + c) * WIDTH + k);
      top = max(top, VEC4 != 0 ? max(max(v[k].x, v[k].y), max(v[k].z, v[k].w)) : v[k].x);
    }
    s *= exp(max(most - top, -80.0));
    most = top;
    [[unroll]] for (uint k = 0; k < WIDTH; ++k) {
      const vec4 e = unit_mask(exp_above(v[k] - top));
      s += (e.x + e.y) + (e.z + e.w);
    }
  }
  const float top = row_max(most), scale = 1 / row_sum(s * exp(max(most - top, -80.0)));
  for (uint c = row_lane(); c < groups; c += LANES) {
    vec4 v[WIDTH];
    [[unroll]] for (uint k = 0; k < WIDTH; ++k) v[k] = exp_above(LOAD(X, (base + c) * WIDTH + k) - top) * scale;
    STORE_GROUP(y, base + c, v);
  }
}
