// Bilinear resizing, pixel centres at half integers; backward gathers, for each input pixel, the outputs that read it.
//@variant vec4 VEC=4
//@variant scalar VEC=1
//@variant vec4_bwd VEC=4 BACKWARD=1
//@variant scalar_bwd VEC=1 BACKWARD=1
#version 450
#extension GL_GOOGLE_include_directive : require
#include "channels.glsl"
#include "index.glsl"
#include "resize_bilinear.args.h"

layout(local_size_x_id = 0) in;
layout(constant_id = 0) const uint LOCAL = 256;
layout(set = 0, binding = 0) uniform samplerBuffer X;
layout(set = 0, binding = 1, std430) writeonly buffer Y { UNIT y[]; };
layout(push_constant) uniform Push { ResizeArgs a; };

struct Sample {
  uint low, high;
  float high_weight;
};

// Where output `o` reads. The position ((2 o + 1) in_size / out_size - 1) / 2 is kept as an exact fraction.
Sample sample_at(uint o, uint in_size, uint out_size) {
  const uint n = max((2u * o + 1u) * in_size, out_size) - out_size, d = 2u * out_size, low = min(n / d, in_size - 1u);
  return Sample(low, min(low + 1u, in_size - 1u), float(n - low * d) / float(d));
}

#ifdef BACKWARD
float weight(uint o, uint i, uint in_size, uint out_size) {
  const Sample s = sample_at(o, in_size, out_size);
  return (s.low == i ? 1.0 - s.high_weight : 0.0) + (s.high == i ? s.high_weight : 0.0);
}

// Outputs [x, y) that may read input i: those between the centres of its neighbours.
uvec2 readers(uint i, uint in_size, uint out_size) {
  const int d = 2 * int(in_size), scale = int(out_size), half_d = int(in_size);
  const int first = ((2 * int(i) - 1) * scale - half_d) / d, last = ((2 * int(i) + 3) * scale - half_d) / d;
  return uvec2(max(first, 0), min(last + 1, scale));
}

void main() {
  const uint i = group_1d() * LOCAL + gl_LocalInvocationIndex;
  if (i >= a.count) return;
  const uint u = i % a.units, pixel = i / a.units, x = pixel % a.in_w, row = pixel / a.in_w, iy = row % a.in_h;
  const uvec2 ys = readers(iy, a.in_h, a.out_h), xs = readers(x, a.in_w, a.out_w);
  UNIT sum = UNIT(0);
  for (uint oy = ys.x; oy < ys.y; ++oy) {
    const float wy = weight(oy, iy, a.in_h, a.out_h);
    const uint at = (row / a.in_h * a.out_h + oy) * a.out_w;
    for (uint ox = xs.x; ox < xs.y; ++ox) {
      sum += LOAD(X, (at + ox) * a.units + u) * (wy * weight(ox, x, a.in_w, a.out_w));
    }
  }
  y[i] = sum;
}
#else
void main() {
  const uint i = group_1d() * LOCAL + gl_LocalInvocationIndex;
  if (i >= a.count) return;
  const uint u = i % a.units, pixel = i / a.units, x = pixel % a.out_w, row = pixel / a.out_w;
  const Sample sy = sample_at(row % a.out_h, a.in_h, a.out_h), sx = sample_at(x, a.in_w, a.out_w);
  const uint top = (row / a.out_h * a.in_h + sy.low) * a.in_w, bottom = (row / a.out_h * a.in_h + sy.high) * a.in_w;
  const UNIT t = mix(LOAD(X, (top + sx.low) * a.units + u), LOAD(X, (top + sx.high) * a.units + u), sx.high_weight);
  const UNIT b = mix(LOAD(X, (bottom + sx.low) * a.units + u), LOAD(X, (bottom + sx.high) * a.units + u), sx.high_weight);
  y[i] = mix(t, b, sy.high_weight);
}
#endif
