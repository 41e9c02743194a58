#version 450
// Gradient of a convolution's weights and bias, structure "simd": partial sums over a range of pixels.
//   partial[split][o][tap, c] = sum over pixels of dy[pixel, o] x[pixel * stride + tap - pad, c];  last column: sum of dy
// One workgroup = one subgroup = 4 * MA rows o x SG * NV texels of columns. Lanes are columns (tap, 4 channels), each with its
// own offset into x; the values of dy, fetched a pixel per lane, are spread with shuffles from constant lanes.
#extension GL_GOOGLE_include_directive : require
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_shuffle : require
#extension GL_EXT_control_flow_attributes : require
#include "conv2d_weight.args.h"
#include "divide.glsl"
layout(local_size_x_id = 0) in;
layout(constant_id = 0) const int SG = 8;
layout(constant_id = 1) const int MA = 4;
layout(constant_id = 2) const int NV = 1;
layout(set = 0, binding = 0) uniform samplerBuffer X;
layout(set = 0, binding = 1) uniform samplerBuffer DY;
layout(set = 0, binding = 2, std430) writeonly buffer P { vec4 partial[]; };
layout(push_constant) uniform Push { Conv2dWeightArgs a; };

void main() {
  const int lane = int(gl_LocalInvocationIndex), c4 = int(a.in_c4), out_c4 = int(a.out_c4);
  const int column0 = int(gl_WorkGroupID.x) * (SG * NV) + lane, row4 = int(gl_WorkGroupID.y) * MA;
  int dy[NV], dx[NV], offset[NV];
  [[unroll]] for (int j = 0; j < NV; ++j) {
    const ivec2 tap = divide(column0 + j * SG, c4, 1.0 / float(c4));
    const ivec2 k = divide(tap.x, int(a.kernel_w), 1.0 / float(a.kernel_w));
    dy[j] = k.x - a.pad_top;
    dx[j] = k.y - a.pad_left;
    offset[j] = (dy[j] * int(a.in_w) + dx[j]) * c4 + tap.y;
  }
  const int begin = int(gl_WorkGroupID.z * a.split), end = min(begin + int(a.split), int(a.pixels));
  const ivec2 row = divide(begin, int(a.out_w), 1.0 / float(a.out_w));
  const ivec2 top = divide(row.x, int(a.out_h), 1.0 / float(a.out_h));
  int image = top.x, y = top.y * a.stride, x = row.y * a.stride;  // of the current pixel, in the input
  const int end_y = int(a.out_h) * a.stride, end_x = int(a.out_w) * a.stride;
  vec4 acc[MA * 4][NV], bias[MA];
  [[unroll]] for (int m = 0; m < MA; ++m) bias[m] = vec4(0);
  [[unroll]] for (int i = 0; i < MA * 4; ++i) {
    [[unroll]] for (int j = 0; j < NV; ++j) acc[i][j] = vec4(0);
  }
  for (int p = begin; p < end; p += SG) {
    vec4 g[MA];
    const bool inside = p + lane < end;
    const int at = inside ? (p + lane) * out_c4 + row4 : 0;
    [[unroll]] for (int m = 0; m < MA; ++m) {
      const bool ok = inside && row4 + m < out_c4;
      g[m] = texelFetch(DY, ok ? at + m : 0);
      g[m] = ok ? g[m] : vec4(0);
      bias[m] += g[m];
    }
    [[unroll]] for (int h = 0; h < SG; ++h) {
      vec4 v[NV];
      const int pixel = ((image * int(a.in_h) + y) * int(a.in_w) + x) * c4;
      [[unroll]] for (int j = 0; j < NV; ++j) {
        const bool ok = uint(y + dy[j]) < a.in_h && uint(x + dx[j]) < a.in_w && image < int(a.batch);
        v[j] = texelFetch(X, ok ? pixel + offset[j] : 0);
        v[j] = ok ? v[j] : vec4(0);
      }
      [[unroll]] for (int i = 0; i < MA * 4; ++i) {
        const float s = subgroupShuffle(g[i / 4][i % 4], h);
        [[unroll]] for (int j = 0; j < NV; ++j) acc[i][j] += s * v[j];
      }
      x += a.stride;
      const bool next_y = x == end_x;
      x = next_y ? 0 : x;
      y += next_y ? a.stride : 0;
      const bool next_image = y == end_y;
      y = next_image ? 0 : y;
      image += next_image ? 1 : 0;
    }
  }
  const int columns = int(a.columns4) + 1, rows = out_c4 * 4;
  const int base = (int(gl_WorkGroupID.z) * rows + row4 * 4) * columns;
  [[unroll]] for (int i = 0; i < MA * 4; ++i) {
    [[unroll]] for (int j = 0; j < NV; ++j) {
      const int column = column0 + j * SG;
      if (column < int(a.columns4) && row4 * 4 + i < rows) partial[base + i * columns + column] = acc[i][j];
    }
  }
  [[unroll]] for (int m = 0; m < MA; ++m) {
    [[unroll]] for (int d = 1; d < SG; d *= 2) {
      bias[m] += vec4(subgroupShuffle(bias[m].x, lane ^ d), subgroupShuffle(bias[m].y, lane ^ d),
                      subgroupShuffle(bias[m].z, lane ^ d), subgroupShuffle(bias[m].w, lane ^ d));
    }
    if (gl_WorkGroupID.x == 0u && lane < 4 && row4 + m < out_c4) {
      partial[base + (m * 4 + lane) * columns + columns - 1] = vec4(bias[m][lane]);
    }
  }
}
