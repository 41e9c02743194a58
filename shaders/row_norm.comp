#version 450
//@variant f32
//@variant wide int64 WIDE=1
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
layout(set = 0, binding = 3) writeonly buffer Y { WIDE_VEC y[]; };
layout(set = 0, binding = 4) writeonly buffer Stats { vec2 stats[]; };
layout(push_constant) uniform Push { RowNormArgs a; };

#ifdef WIDE
const uint ROWS = 4;  // of a workgroup: what is read per column serves all of them, which have the same vectors
#else
const uint ROWS = 1;
#endif

// Mean and reciprocal deviation in one pass over the row: every component of an invocation sums differences from its own
// first element, which can't be further from their mean than their deviation says, so little cancels.
vec2 statistics(uint base, uint groups) {
  const float n = float(a.cols);
  vec4 s = vec4(0), q = vec4(0);
  const vec4 origin = CENTER != 0 && row_lane() < groups ? LOAD(X, (base + row_lane()) * WIDTH) : vec4(0);
  float count = 0;
  for (uint c = row_lane(); c < groups; c += LANES) {
    [[unroll]] for (uint k = 0; k < WIDTH; ++k) {
      const vec4 d = LOAD(X, (base + c) * WIDTH + k) - origin;
      if (CENTER != 0) s += d;
      q += d * d;
    }
    if (CENTER != 0) count += float(WIDTH);
  }
  if (CENTER == 0) return vec2(0, inversesqrt(row_sum(unit_mask(q)) / n + a.eps));
  const float mean = row_sum(unit_mask(count * origin + s)) / n;
  const vec4 part = s / max(count, 1.0), off = origin + part - mean;
  return vec2(mean, inversesqrt(row_sum(unit_mask(max(q - part * s, 0.0) + count * off * off)) / n + a.eps));
}

void main() {
  const uint first = group_1d() * ROWS;
  if (first >= a.rows) return;
  const uint groups = UNITS(a.cols) / WIDTH;
  uint base[ROWS];
  vec2 t[ROWS];
  // Row by row, written out: compilers don't unroll loops around loops, and the arrays would go to memory.
#define START_ROW(r)                           \
  base[r] = min(first + r, a.rows - 1) * groups; \
  t[r] = statistics(base[r], groups);          \
  if (row_lane() == 0) stats[min(first + r, a.rows - 1)] = t[r];
  START_ROW(0)
#ifdef WIDE
  START_ROW(1) START_ROW(2) START_ROW(3)
#endif
  const uint vector = first / a.rows_per_vector;
  const uint weight_base = UNITS(vector * a.weight_stride), bias_base = UNITS(vector * a.bias_stride);
  for (uint c = row_lane(); c < groups; c += LANES) {
    vec4 weight[WIDTH], bias[WIDTH];
    [[unroll]] for (uint k = 0; k < WIDTH; ++k) {
      weight[k] = HAS_WEIGHT != 0 ? LOAD(W, weight_base + c * WIDTH + k) + float(ADD_ONE) : vec4(1);
      bias[k] = HAS_BIAS != 0 ? LOAD(B, bias_base + c * WIDTH + k) : vec4(0);
    }
    [[unroll]] for (uint r = 0; r < ROWS; ++r) {
      vec4 v[WIDTH];
      [[unroll]] for (uint k = 0; k < WIDTH; ++k) {
        v[k] = (LOAD(X, (base[r] + c) * WIDTH + k) - t[r].x) * t[r].y;
        if (HAS_WEIGHT != 0) v[k] *= weight[k];
        if (HAS_BIAS != 0) v[k] += bias[k];
      }
      STORE_GROUP(y, base[r] + c, v);
    }
  }
}
