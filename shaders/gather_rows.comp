#version 450
// y[i] = table[ids[i]], widened to f32. Rows are read as raw words: FORMAT 0 f32, 1 f16, 2 bf16.
#extension GL_GOOGLE_include_directive : require
#include "columns.glsl"
#include "gather_rows.args.h"
layout(constant_id = 2) const uint FORMAT = 0;
layout(set = 0, binding = 0) uniform usamplerBuffer Table;
layout(set = 0, binding = 1) readonly buffer Ids { int ids[]; };
layout(set = 0, binding = 2) writeonly buffer Y { vec4 y[]; };
layout(push_constant) uniform Push { GatherRowsArgs a; };

vec2 widen(uint word) {
  return FORMAT == 1 ? unpackHalf2x16(word) : uintBitsToFloat(uvec2(word << 16, word & 0xffff0000u));
}

// Unit i of the table, whatever its format.
vec4 load(uint i) {
  if (FORMAT == 0) {
    if (VEC4 != 0) return uintBitsToFloat(texelFetch(Table, int(i)));
    return vec4(uintBitsToFloat(texelFetch(Table, int(i >> 2))[i & 3u]), 0, 0, 0);
  }
  if (VEC4 != 0) {
    const uvec4 words = texelFetch(Table, int(i >> 1));
    const uvec2 pair = (i & 1u) != 0 ? words.zw : words.xy;
    return vec4(widen(pair.x), widen(pair.y));
  }
  const vec2 pair = widen(texelFetch(Table, int(i >> 3))[(i >> 1) & 3u]);
  return vec4((i & 1u) != 0 ? pair.y : pair.x, 0, 0, 0);
}

void main() {
  const uint units = UNITS(a.cols), c = column_unit();
  if (c >= units) return;
  const uint first = gl_WorkGroupID.y * a.rows_per_group, last = min(first + a.rows_per_group, a.count);
  for (uint r = first; r < last; ++r) {
    const uint row = min(uint(ids[r]), a.table_rows - 1);
    if (row < a.first_row || row - a.first_row >= a.rows) continue;
    const vec4 v = load((row - a.first_row) * units + c);
    STORE(y, r * units + c, v);
  }
}
