#version 450
//@variant f32
//@variant wide int64 WIDE=1
// dx = rstd (g - mean(g) - xhat mean(g xhat)), g = dy * weight; without CENTER the mean of g is not removed.
#extension GL_GOOGLE_include_directive : require
#include "row.glsl"
#include "row_norm_bwd.args.h"
layout(constant_id = 3) const uint CENTER = 1;
layout(constant_id = 4) const uint HAS_WEIGHT = 0;
layout(constant_id = 5) const uint ADD_ONE = 0;
layout(set = 0, binding = 0) uniform samplerBuffer X;
layout(set = 0, binding = 1) uniform samplerBuffer W;
layout(set = 0, binding = 2) uniform samplerBuffer DY;
layout(set = 0, binding = 3) readonly buffer Stats { vec2 stats[]; };
layout(set = 0, binding = 4) writeonly buffer DX { WIDE_VEC dx[]; };
layout(push_constant) uniform Push { RowNormBwdArgs a; };

void main() {
  const uint row = group_1d();
  if (row >= a.rows) return;
  const uint groups = UNITS(a.cols) / WIDTH, base = row * groups;
  const uint weight_base = UNITS(row / a.rows_per_vector * a.weight_stride);
  const vec2 t = stats[row];
  vec4 sum_g = vec4(0), sum_gx = vec4(0);
  for (uint c = row_lane(); c < groups; c += LANES) {
    [[unroll]] for (uint k = 0; k < WIDTH; ++k) {
      vec4 g = LOAD(DY, (base + c) * WIDTH + k);
      if (HAS_WEIGHT != 0) g *= LOAD(W, weight_base + c * WIDTH + k) + float(ADD_ONE);
      sum_g += g;
      sum_gx += g * ((LOAD(X, (base + c) * WIDTH + k) - t.x) * t.y);
    }
  }
  const float n = float(a.cols);
  const float mean_gx = row_sum(sum_gx) / n;
  const float mean_g = CENTER != 0 ? row_sum(sum_g) / n : 0.0;
  for (uint c = row_lane(); c < groups; c += LANES) {
    vec4 v[WIDTH];
    [[unroll]] for (uint k = 0; k < WIDTH; ++k) {
      vec4 g = LOAD(DY, (base + c) * WIDTH + k);
      if (HAS_WEIGHT != 0) g *= LOAD(W, weight_base + c * WIDTH + k) + float(ADD_ONE);
      const vec4 xhat = (LOAD(X, (base + c) * WIDTH + k) - t.x) * t.y;
      v[k] = t.y * (g - mean_g - xhat * mean_gx);
    }
    STORE_GROUP(dx, base + c, v);
  }
}
