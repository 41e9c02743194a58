#version 450
// Sum of squares of one chunk per workgroup; FINISH: the square root of the sum of all chunks' results.
#extension GL_GOOGLE_include_directive : require
#include "row.glsl"
#include "sum_squares.args.h"
layout(constant_id = 3) const uint FINISH = 0;
layout(set = 0, binding = 0) uniform samplerBuffer X;
layout(set = 0, binding = 1) writeonly buffer Out { float result[]; };
layout(push_constant) uniform Push { SumSquaresArgs a; };

void main() {
  const uint units = (a.count + 3) / 4, tail = a.count % 4;
  const uint begin = group_1d() * a.units_per_group, end = min(units, begin + a.units_per_group);
  vec4 s = vec4(0);
  for (uint i = begin + row_lane(); i < end; i += LANES) {
    vec4 x = texelFetch(X, int(i));
    if (i == units - 1 && tail != 0) x = mix(vec4(0), x, lessThan(uvec4(0, 1, 2, 3), uvec4(tail)));
    s += FINISH != 0 ? x : x * x;
  }
  const float total = row_sum(s);
  if (row_lane() == 0) result[group_1d()] = FINISH != 0 ? sqrt(total) : total;
}
