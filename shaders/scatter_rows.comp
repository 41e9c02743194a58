#version 450
// dtable[row] = sum of dy over the positions that read the row, in ascending order (scatter_chains.comp).
#extension GL_GOOGLE_include_directive : require
#include "columns.glsl"
#include "scatter_rows.args.h"
layout(set = 0, binding = 0) uniform samplerBuffer DY;
layout(set = 0, binding = 1) readonly buffer Chain { int chain[]; };
layout(set = 0, binding = 2) writeonly buffer DTable { vec4 dtable[]; };
layout(push_constant) uniform Push { ScatterRowsArgs a; };

void main() {
  const uint units = UNITS(a.cols), c = column_unit();
  if (c >= units) return;
  const uint first = gl_WorkGroupID.y * a.rows_per_group, last = min(first + a.rows_per_group, a.table_rows);
  for (uint r = first; r < last; ++r) {
    vec4 s = vec4(0);
    for (int i = chain[r]; i >= 0; i = chain[a.table_rows + uint(i)]) s += LOAD(DY, uint(i) * units + c);
    STORE(dtable, r * units + c, s);
  }
}
