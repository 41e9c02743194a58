#version 450
// Each invocation's smallest of per_result consecutive numbers, or a NaN among them.
#extension GL_GOOGLE_include_directive : require
#include "index.glsl"
#include "kernel_regression.args.h"
#include "nan.glsl"
layout(local_size_x_id = 0) in;
layout(constant_id = 0) const uint LOCAL = 64;
layout(set = 0, binding = 0) readonly buffer X { float x[]; };
layout(set = 0, binding = 1) writeonly buffer Y { float y[]; };
layout(push_constant) uniform Push { MinimumArgs a; };

void main() {
  const uint i = group_1d() * LOCAL + gl_LocalInvocationIndex;
  if (i >= a.results) return;
  const uint begin = i * a.per_result, end = min(begin + a.per_result, a.n);
  float least = x[begin];
  for (uint j = begin + 1; j < end; ++j) least = keep_nan(least, keep_nan(x[j], min(least, x[j])));
  y[i] = least;
}
