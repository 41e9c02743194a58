#version 450
//@variant vec4
//@variant scalar SCALAR_STORE=1
// Direct convolution, structure "simd": one workgroup = one subgroup = SG * MA pixels x NO output channels, without shared
// memory or barriers. Lanes are pixels: each fetches 4 channels of its own pixels at one tap; the weights are fetched a row
// per lane and spread with shuffles from constant lanes. A lane ends with consecutive channels of its pixels: vec4 stores.
#extension GL_GOOGLE_include_directive : require
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_shuffle : require
#extension GL_EXT_control_flow_attributes : require
#include "conv2d.args.h"
#include "divide.glsl"
layout(local_size_x_id = 0) in;
layout(constant_id = 0) const int SG = 8;
layout(constant_id = 1) const int MA = 4;
layout(constant_id = 2) const int NO = 16;      // a multiple of SG, or a divisor of it; a multiple of 4
layout(set = 0, binding = 0) uniform samplerBuffer X;
layout(set = 0, binding = 1) uniform samplerBuffer W;  // packed by conv2d_pack.comp, lanes = NO
#ifdef SCALAR_STORE
layout(set = 0, binding = 2, std430) writeonly buffer Y { float y[]; };
#else
layout(set = 0, binding = 2, std430) writeonly buffer Y { vec4 y[]; };
#endif
layout(push_constant) uniform Push { Conv2dArgs a; };

const int WV = (NO + SG - 1) / SG;  // vectors of weight rows

void main() {
  const int lane = int(gl_LocalInvocationIndex), c4 = int(a.in_c4), taps = int(a.kernel_h * a.kernel_w);
  const int pixel0 = int(gl_WorkGroupID.x + gl_WorkGroupID.z * 32768u) * (SG * MA);
  if (pixel0 >= int(a.pixels)) return;
  const int block = int(gl_WorkGroupID.y);
  const float inverse_w = 1.0 / float(a.out_w), inverse_h = 1.0 / float(a.out_h);
  int in_y[MA], in_x[MA], image[MA];
  [[unroll]] for (int m = 0; m < MA; ++m) {
    const ivec2 row = divide(min(pixel0 + m * SG + lane, int(a.pixels) - 1), int(a.out_w), inverse_w);
    const ivec2 top = divide(row.x, int(a.out_h), inverse_h);
    image[m] = top.x * int(a.in_h);
    in_y[m] = top.y * a.stride - a.pad_top;
    in_x[m] = row.y * a.stride - a.pad_left;
  }
  vec4 acc[NO / 4][MA];
  [[unroll]] for (int o = 0; o < NO / 4; ++o) {
    const vec4 bias = texelFetch(W, int(a.bias_at) + block * (NO / 4) + o);
    [[unroll]] for (int m = 0; m < MA; ++m) acc[o][m] = bias;
  }
  int wi = block * taps * c4 * NO + lane % NO;
  for (int ky = 0; ky < int(a.kernel_h); ++ky) {
    for (int kx = 0; kx < int(a.kernel_w); ++kx) {
      int at[MA];
      bool inside[MA];
      [[unroll]] for (int m = 0; m < MA; ++m) {
        const uint py = uint(in_y[m] + ky), px = uint(in_x[m] + kx);  // negative: far too large
        const bool ok = py < a.in_h && px < a.in_w;
        inside[m] = ok;
        at[m] = ok ? ((image[m] + int(py)) * int(a.in_w) + int(px)) * c4 : 0;
      }
      for (int c = 0; c < c4; ++c) {
        vec4 x[MA], w[WV];
        [[unroll]] for (int j = 0; j < WV; ++j) w[j] = texelFetch(W, wi + j * SG);
        [[unroll]] for (int m = 0; m < MA; ++m) {
          x[m] = texelFetch(X, at[m] + c);
          x[m] = inside[m] ? x[m] : vec4(0);
        }
        [[unroll]] for (int o = 0; o < NO; ++o) {
          const vec4 s = vec4(subgroupShuffle(w[o / SG].x, o % SG), subgroupShuffle(w[o / SG].y, o % SG),
                              subgroupShuffle(w[o / SG].z, o % SG), subgroupShuffle(w[o / SG].w, o % SG));
          [[unroll]] for (int m = 0; m < MA; ++m) {
            acc[o / 4][m][o % 4] += s.x * x[m].x + s.y * x[m].y + s.z * x[m].z + s.w * x[m].w;
          }
        }
        wi += NO;
      }
    }
  }
  [[unroll]] for (int m = 0; m < MA; ++m) {
    const int pixel = pixel0 + m * SG + lane;
    if (pixel < int(a.pixels)) {
      [[unroll]] for (int o = 0; o < NO / 4; ++o) {
#ifdef SCALAR_STORE
        [[unroll]] for (int k = 0; k < 4; ++k) {
          const int channel = block * NO + o * 4 + k;
          if (channel < int(a.out_c)) y[pixel * int(a.out_c) + channel] = acc[o][m][k];
        }
#else
        const int channel4 = block * (NO / 4) + o;
        if (channel4 * 4 < int(a.out_c)) y[pixel * int(a.out_c / 4u) + channel4] = acc[o][m];
#endif
      }
    }
  }
}
