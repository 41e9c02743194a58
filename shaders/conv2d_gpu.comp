#version 450
//@variant vec4
//@variant scalar SCALAR_STORE=1
// Direct convolution, structure "gpu": 256 invocations compute (TY * PM) pixels x (TX * PO) output channels from tiles in
// shared memory that hold KC texels of 4 channels per pixel and per weight row. The contraction runs over (tap, channel).
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "conv2d.args.h"
layout(constant_id = 0) const uint TX = 16;  // TX * TY = 256
layout(constant_id = 1) const uint TY = 16;
layout(constant_id = 2) const uint PM = 4;  // pixels per invocation
layout(constant_id = 3) const uint PO = 4;  // output channels per invocation, a multiple of 4
layout(constant_id = 4) const uint KC = 4;  // TY * PM * KC is a multiple of 256
layout(local_size_x = 256) in;
layout(set = 0, binding = 0, std430) readonly buffer X { vec4 x[]; };
layout(set = 0, binding = 1, std430) readonly buffer W { vec4 w[]; };  // packed by conv2d_pack.comp, lanes = TX * PO
#ifdef SCALAR_STORE
layout(set = 0, binding = 2, std430) writeonly buffer Y { float y[]; };
#else
layout(set = 0, binding = 2, std430) writeonly buffer Y { vec4 y[]; };
#endif
layout(push_constant) uniform Push { Conv2dArgs a; };

const uint TP = TY * PM, TO = TX * PO;
const uint LOADS = TP * KC / 256;  // of pixels, per invocation and round
const uint WEIGHT_LOADS = (TO * KC + 255) / 256;
shared vec4 tile_x[KC * (TP + 1)];
shared vec4 tile_w[KC * TO];

struct Source {
  int y, x;   // in the input, of tap (0, 0)
  uint image, c, tap_y, tap_x;
};

vec4 fetch(Source s) {
  const uint py = uint(s.y + int(s.tap_y)), px = uint(s.x + int(s.tap_x));  // negative: far too large
  if (s.tap_y < a.kernel_h && py < a.in_h && px < a.in_w) {
    return x[((s.image * a.in_h + py) * a.in_w + px) * a.in_c4 + s.c];
  }
  return vec4(0);
}

void skip(inout Source s, uint texels) {
  s.c += texels;
  while (s.c >= a.in_c4 && s.tap_y < a.kernel_h) {
    s.c -= a.in_c4;
    s.tap_x += 1u;
    if (s.tap_x == a.kernel_w) {
      s.tap_x = 0u;
      s.tap_y += 1u;
    }
  }
}

void main() {
  const uint id = gl_LocalInvocationIndex, tx = id % TX, ty = id / TX;
  const uint pixel0 = (gl_WorkGroupID.x + gl_WorkGroupID.z * 32768u) * TP, block = gl_WorkGroupID.y;
  if (pixel0 >= a.pixels) return;
  const uint depth = a.kernel_h * a.kernel_w * a.in_c4;
  Source source[LOADS];
  [[unroll]] for (uint i = 0u; i < LOADS; ++i) {
    const uint pixel = min(pixel0 + (i * 256u + id) / KC, a.pixels - 1u), row = pixel / a.out_w, image = row / a.out_h;
    source[i] = Source(int(row - image * a.out_h) * a.stride - a.pad_top, int(pixel - row * a.out_w) * a.stride - a.pad_left,
                       image, 0u, 0u, 0u);
    skip(source[i], id % KC);
  }
  vec4 acc[PM][PO / 4];
  [[unroll]] for (uint o = 0u; o < PO / 4u; ++o) {
    const vec4 bias = w[a.bias_at + block * (TO / 4u) + tx * (PO / 4u) + o];
    [[unroll]] for (uint m = 0u; m < PM; ++m) acc[m][o] = bias;
  }
  for (uint k0 = 0u; k0 < depth; k0 += KC) {
    [[unroll]] for (uint i = 0u; i < LOADS; ++i) {
      const uint j = i * 256u + id;
      tile_x[j % KC * (TP + 1u) + j / KC] = fetch(source[i]);
      skip(source[i], KC);
    }
    [[unroll]] for (uint i = 0u; i < WEIGHT_LOADS; ++i) {
      const uint j = i * 256u + id, row = j % TO, kk = j / TO;
      if (j < TO * KC) {
        tile_w[kk * TO + row % PO * TX + row / PO] = k0 + kk < depth ? w[(block * depth + k0 + kk) * TO + row] : vec4(0);
      }
    }
    barrier();
    [[unroll]] for (uint kk = 0u; kk < KC; ++kk) {
      vec4 b[PO];
      [[unroll]] for (uint o = 0u; o < PO; ++o) b[o] = tile_w[kk * TO + o * TX + tx];
      [[unroll]] for (uint m = 0u; m < PM; ++m) {
        const vec4 v = tile_x[kk * (TP + 1u) + m * TY + ty];
        [[unroll]] for (uint o = 0u; o < PO; ++o) acc[m][o / 4u][o % 4u] += dot(v, b[o]);
      }
    }
    barrier();
  }
  [[unroll]] for (uint m = 0u; m < PM; ++m) {
    const uint pixel = pixel0 + m * TY + ty;
    [[unroll]] for (uint o = 0u; o < PO / 4u; ++o) {
      const uint channel = block * TO + tx * PO + o * 4u;
      if (pixel < a.pixels && channel < a.out_c) {
#ifdef SCALAR_STORE
        [[unroll]] for (uint k = 0u; k < 4u; ++k) {
          if (channel + k < a.out_c) y[pixel * a.out_c + channel + k] = acc[m][o][k];
        }
#else
        y[(pixel * a.out_c + channel) / 4u] = acc[m][o];
#endif
      }
    }
  }
}
