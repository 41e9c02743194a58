#version 450
// Sums of dy and of dy * xhat over a chunk of the rows of [batch, rows, cols] -> [batch, chunks, cols].
#extension GL_GOOGLE_include_directive : require
#include "column_sums.args.h"
#include "columns.glsl"
layout(constant_id = 2) const uint HAS_STATS = 0;
layout(constant_id = 3) const uint PLAIN = 1;
layout(constant_id = 4) const uint WEIGHTED = 1;
layout(set = 0, binding = 0) uniform samplerBuffer DY;
layout(set = 0, binding = 1) uniform samplerBuffer X;
layout(set = 0, binding = 2) uniform samplerBuffer Stats;  // mean, 1/deviation per row
layout(set = 0, binding = 3) writeonly buffer PlainOut { vec4 plain[]; };
layout(set = 0, binding = 4) writeonly buffer WeightedOut { vec4 weighted[]; };
layout(push_constant) uniform Push { ColumnSumsArgs a; };

void main() {
  const uint units = UNITS(a.cols), c = column_unit();
  if (c >= units) return;
  const uint first = gl_WorkGroupID.y * a.chunk, last = min(first + a.chunk, a.rows);
  vec4 s = vec4(0), w = vec4(0);
  for (uint r = first; r < last; ++r) {
    const uint row = gl_WorkGroupID.z * a.rows + r, i = row * units + c;
    const vec4 dy = LOAD(DY, i);
    if (PLAIN != 0) s += dy;
    if (WEIGHTED != 0) {
      vec4 x = LOAD(X, i);
      if (HAS_STATS != 0) {
        const vec4 two = texelFetch(Stats, int(row / 2));
        const vec2 t = row % 2 == 0 ? two.xy : two.zw;
        x = (x - t.x) * t.y;
      }
      w += dy * x;
    }
  }
  const uint o = (gl_WorkGroupID.z * gl_NumWorkGroups.y + gl_WorkGroupID.y) * units + c;
  if (PLAIN != 0) {
    STORE(plain, o, s);
  }
  if (WEIGHTED != 0) {
    STORE(weighted, o, w);
  }
}
