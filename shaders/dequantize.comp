// Packed rows (autograd/packed.h) to dense rows. An invocation decodes one texel of quants: 16 values, or 32 of q4_k.
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
#include "packed_format.glsl"
#include "quantize.args.h"

layout(constant_id = 0) const uint LOCAL = 64;
layout(constant_id = 1) const int FORMAT = 3;
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
  vec4 v[4];
  if (FORMAT == 6) {
    const uint per_row = a.columns / 32, row = item / per_row, i = item % per_row, group = i / 8, t = i % 8;
    const int base = int(a.first_texel + row * a.row_texels + group * 9);
    const uvec4 header = texelFetch(W, base), quants = texelFetch(W, base + 1 + int(t));
    const vec2 d = unpackHalf2x16(header.x);
    const uvec4 scales = q4_scales(header.y, header.z, header.w);
    const uint column = 256 * group + 64 * (t / 2) + 16 * (t % 2);
    [[unroll]] for (uint nibble = 0; nibble < 2; nibble++) {
      const vec2 affine = q4_affine(d, scales, t / 2 * 2 + nibble);
      [[unroll]] for (uint c = 0; c < 4; c++) v[c] = affine.x * nibble_values(quants[c] >> (4 * nibble)) - affine.y;
      store(row, column + 32 * nibble, v);
    }
    return;
  }
  const uint per_row = (a.columns + 15) / 16, row = item / per_row, i = item % per_row;
  uint texel = a.first_texel + row * a.row_texels + i;
  float d = 1;
  if (FORMAT == 5) {
    const uint group = i / 16, block = i % 16 / 2, blocks = min(8, a.columns / 32 - 8 * group);
    texel += group;
    const uvec4 scales = texelFetch(W, int(texel - i % 16 + 2 * blocks));
    d = q8_scale(scales[block / 2], block);
  }
  const uvec4 quants = texelFetch(W, int(texel));
  [[unroll]] for (int c = 0; c < 4; c++) {
    v[c] = byte_values(FORMAT, quants[c]);
    if (FORMAT == 5) v[c] *= d;
  }
  store(row, 16 * i, v);
}
