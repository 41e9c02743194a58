#version 450
// The partial sums of conv2d_weight_simd.comp, structure "gpu": 256 invocations compute 64 rows o x 16 texels of columns
// (tap, 4 channels), KP pixels a round through shared memory; each invocation holds 4 rows of one texel.
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "conv2d_weight.args.h"
layout(local_size_x = 256) in;
layout(set = 0, binding = 0, std430) readonly buffer X { vec4 x[]; };
layout(set = 0, binding = 1, std430) readonly buffer DY { vec4 dy[]; };
layout(set = 0, binding = 2, std430) writeonly buffer P { vec4 partial[]; };
layout(push_constant) uniform Push { Conv2dWeightArgs a; };

const uint KP = 16;
shared vec4 tile_dy[KP][16], tile_x[KP][16];

void main() {
  const uint id = gl_LocalInvocationIndex, tx = id % 16u, ty = id / 16u;
  const uint column = gl_WorkGroupID.x * 16u + tx, row4 = gl_WorkGroupID.y * 16u;
  const uint tap = column / a.in_c4, c = column - tap * a.in_c4, tap_y = tap / a.kernel_w, tap_x = tap - tap_y * a.kernel_w;
  const uint begin = gl_WorkGroupID.z * a.split, end = min(begin + a.split, a.pixels);
  vec4 acc[4] = vec4[4](vec4(0), vec4(0), vec4(0), vec4(0)), bias = vec4(0);
  for (uint p = begin; p < end; p += KP) {
    const uint pixel = p + ty;  // in this part tx is the texel and ty the pixel
    vec4 g = vec4(0), v = vec4(0);
    if (pixel < end) {
      if (row4 + tx < a.out_c4) g = dy[pixel * a.out_c4 + row4 + tx];
      const uint row = pixel / a.out_w, image = row / a.out_h;
      const uint sy = uint(int(row - image * a.out_h) * a.stride - a.pad_top) + tap_y;
      const uint sx = uint(int(pixel - row * a.out_w) * a.stride - a.pad_left) + tap_x;
      if (column < a.columns4 && sy < a.in_h && sx < a.in_w) v = x[((image * a.in_h + sy) * a.in_w + sx) * a.in_c4 + c];
    }
    tile_dy[ty][tx] = g;
    tile_x[ty][tx] = v;
    barrier();
    [[unroll]] for (uint k = 0u; k < KP; ++k) {
      const vec4 s = tile_dy[k][ty], t = tile_x[k][tx];
      bias += s;
      acc[0] += s.x * t;
      acc[1] += s.y * t;
      acc[2] += s.z * t;
      acc[3] += s.w * t;
    }
    barrier();
  }
  const uint columns = a.columns4 + 1u, rows = a.out_c4 * 4u;
  [[unroll]] for (uint i = 0u; i < 4u; ++i) {
    const uint row = (row4 + ty) * 4u + i;
    if (row >= rows) continue;
    const uint at = (gl_WorkGroupID.z * rows + row) * columns;
    if (column < a.columns4) partial[at + column] = acc[i];
    if (gl_WorkGroupID.x == 0u && tx == 0u) partial[at + a.columns4] = vec4(bias[i]);
  }
}
