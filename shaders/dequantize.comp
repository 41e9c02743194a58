// Packed rows (autograd/packed.h) to dense rows. An invocation decodes a unit of 16 values.
//   f32     rows of a multiple of four values
//   scalar  f32, fp8 rows of any length
//   b16     f16 or bf16, rows of a multiple of eight values
//@variant f32
//@variant scalar SCALAR=1
//@variant b16 HALF=1
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "half.glsl"
#include "index.glsl"
#include "quantize.args.h"

layout(constant_id = 0) const uint LOCAL = 64;
layout(constant_id = 1) const uint FORMAT = 3;
layout(constant_id = 2) const uint BF16 = 0;  // of b16
layout(local_size_x_id = 0) in;
layout(set = 0, binding = 0) uniform usamplerBuffer W;
#ifdef SCALAR
layout(set = 0, binding = 1) writeonly buffer Y { float y[]; };
#elif defined(HALF)
layout(set = 0, binding = 1) writeonly buffer Y { uvec4 y[]; };
#else
layout(set = 0, binding = 1) writeonly buffer Y { vec4 y[]; };
#endif
layout(push_constant) uniform Push { DequantizeArgs a; };
#define PACKED_FORMAT FORMAT
#define PACKED_WORD(i) texelFetch(W, int((i) / 4))[(i) % 4]
#include "packed_format.glsl"

#ifdef HALF
uint pair(vec2 v) {
  const uvec2 u = floatBitsToUint(v);
  return BF16 != 0 ? to_bf16(u.x) | to_bf16(u.y) << 16 : to_f16(u.x) | to_f16(u.y) << 16;
}
#endif

// Values [column, column + 16) of a row.
void store(uint row, uint column, vec4 v[4]) {
  const uint at = row * a.columns + column;
#ifdef SCALAR
  for (uint i = 0; i < 16; i++) {
    if (column + i < a.columns) y[at + i] = v[i / 4][i % 4];
  }
#elif defined(HALF)
  [[unroll]] for (uint i = 0; i < 2; i++) {
    if (column + 8 * i < a.columns)
      y[at / 8 + i] = uvec4(pair(v[2 * i].xy), pair(v[2 * i].zw), pair(v[2 * i + 1].xy), pair(v[2 * i + 1].zw));
  }
#else
  [[unroll]] for (uint i = 0; i < 4; i++) {
    if (column + 4 * i < a.columns) y[at / 4 + i] = v[i];
  }
#endif
}

void main() {
  const uint item = group_1d() * LOCAL + gl_LocalInvocationIndex;
  if (item >= a.items) return;
  const uint per_row = (a.columns + 15) / 16, row = item / per_row, unit = item % per_row;
  const PackedUnit u = packed_unit(4 * (a.first_texel + row * a.row_texels), a.columns, unit);
  const vec2 scale = unit_scale(u.scale, unit);
  vec4 v[4];
  [[unroll]] for (uint g = 0; g < 4; g++) v[g] = group_values(group_numbers(u.low[g], u.high, 4 * unit + g), scale);
  store(row, 16 * unit, v);
}
