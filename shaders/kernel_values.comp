#version 450
// Values with a column of ones behind them: a row (v_j, 1, 0 ..) of a kept key, zeros for a dropped one, so that one
// product with the features sums values and weights alike. BACKWARD: the columns of values alone, dropped rows zero.
#extension GL_GOOGLE_include_directive : require
#include "index.glsl"
#include "kernel_regression.args.h"
layout(local_size_x_id = 0) in;
layout(constant_id = 0) const uint LOCAL = 256;
layout(constant_id = 1) const uint VEC4 = 1;  // cols is a multiple of 4
layout(constant_id = 2) const uint MASKED = 0;
layout(constant_id = 3) const uint BACKWARD = 0;
layout(set = 0, binding = 0) uniform samplerBuffer X;
layout(set = 0, binding = 1) readonly buffer Mask { uint mask[]; };
layout(set = 0, binding = 2) writeonly buffer Out { vec4 result[]; };
layout(push_constant) uniform Push { KernelValuesArgs a; };
#include "units.glsl"

bool keep(uint row) {
  if (MASKED == 0) return true;
  const uint at = row / a.count / a.heads * a.keys + a.start + row % a.count;
  return (mask[at / 4] >> (8 * (at % 4)) & 255u) != 0;
}

void main() {
  const uint i = group_1d() * LOCAL + gl_LocalInvocationIndex;
  if (i >= a.units) return;
  if (BACKWARD != 0) {
    const uint units = UNITS(a.cols), row = i / units, c = i % units;
    const vec4 x = keep(row) ? LOAD(X, row * UNITS(a.width) + c) : vec4(0);
    STORE(result, i, x);
    return;
  }
  const uint row = i / (a.width / 4), c = 4 * (i % (a.width / 4));
  const uint source = (row / a.count * a.keys + a.start + row % a.count) * a.cols;
  vec4 y = vec4(0);
  if (keep(row)) {
    if (VEC4 != 0 && c < a.cols) {
      y = texelFetch(X, int((source + c) / 4));
    } else {
      for (uint j = 0; j < 4; ++j) {
        if (c + j < a.cols) y[j] = LOAD1(X, source + c + j);
        if (c + j == a.cols) y[j] = 1;
      }
    }
  }
  result[i] = y;
}
