#version 450
// Weights [O, C, taps] of a convolution -> [row blocks][taps][C / 4][rows of a block][4] f32, then the bias per row; rows and
// channels are filled up with zeros. With FLIP the weights of the transposed convolution: rows are the C, channels the O, and
// the taps run backwards.
#extension GL_GOOGLE_include_directive : require
#include "conv2d_pack.args.h"
#include "index.glsl"
layout(constant_id = 0) const uint WEIGHT_FORMAT = 0;  // 0 f32, 1 f16, 2 bf16
layout(constant_id = 1) const uint BIAS_FORMAT = 0;
layout(constant_id = 2) const uint FLIP = 0;
layout(local_size_x = 256) in;
layout(set = 0, binding = 0, std430) readonly buffer W { uint w[]; };
layout(set = 0, binding = 1, std430) readonly buffer B { uint b[]; };
layout(set = 0, binding = 2, std430) writeonly buffer Y { vec4 y[]; };
layout(push_constant) uniform Push { Conv2dPackArgs a; };

float decode(uint word, uint format, uint i) {
  if (format == 0u) return uintBitsToFloat(word);
  const uint half_word = (i & 1u) != 0u ? word >> 16 : word & 0xffffu;
  return format == 1u ? unpackHalf2x16(half_word).x : uintBitsToFloat(half_word << 16);
}

void main() {
  const uint i = group_1d() * 256u + gl_LocalInvocationIndex;
  if (i >= a.n) return;
  vec4 v = vec4(0);
  if (i >= a.bias_at) {
    for (uint k = 0u; k < 4u; ++k) {
      const uint row = (i - a.bias_at) * 4u + k;
      if (a.has_bias != 0u && row < a.rows) v[k] = decode(b[BIAS_FORMAT == 0u ? row : row / 2u], BIAS_FORMAT, row);
    }
  } else {
    const uint lane = i % a.lanes, j = i / a.lanes, c4 = j % a.channels4, k = j / a.channels4;
    const uint tap = k % a.taps, row = k / a.taps * a.lanes + lane;
    for (uint q = 0u; q < 4u; ++q) {
      const uint c = c4 * 4u + q;
      if (row < a.rows && c < a.channels) {
        const uint e = FLIP == 0u ? (row * a.channels + c) * a.taps + tap : (c * a.rows + row) * a.taps + a.taps - 1u - tap;
        v[q] = decode(w[WEIGHT_FORMAT == 0u ? e : e / 2u], WEIGHT_FORMAT, e);
      }
    }
  }
  y[i] = v;
}
