#version 450
// For every table row the list of positions that read it, in ascending order: chain[row] is the first, and
// chain[table_rows + position] the next after a position; -1 ends a list. One invocation per row reads all ids, so the
// order never depends on scheduling.
#extension GL_GOOGLE_include_directive : require
#include "index.glsl"
#include "scatter_chains.args.h"
layout(constant_id = 0) const uint LOCAL = 64;
layout(local_size_x_id = 0) in;
layout(set = 0, binding = 0) uniform isamplerBuffer Ids;
layout(set = 0, binding = 1) writeonly buffer Chain { int chain[]; };
layout(push_constant) uniform Push { ScatterChainsArgs a; };

void main() {
  const uint row = group_1d() * LOCAL + gl_LocalInvocationIndex;
  if (row >= a.table_rows) return;
  uint slot = row;
  for (uint base = 0; base < a.count; base += 4) {
    const ivec4 four = min(texelFetch(Ids, int(base >> 2)), int(a.table_rows - 1));
    for (uint k = 0; k < 4; ++k) {
      if (base + k < a.count && uint(four[k]) == row) {
        chain[slot] = int(base + k);
        slot = a.table_rows + base + k;
      }
    }
  }
  chain[slot] = -1;
}
