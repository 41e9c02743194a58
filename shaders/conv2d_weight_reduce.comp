#version 450
// Sums the partial results of conv2d_weight_*.comp in order, into dweight[O, C, taps] and dbias[O].
#extension GL_GOOGLE_include_directive : require
#include "conv2d_weight.args.h"
#include "index.glsl"
layout(local_size_x = 256) in;
layout(set = 0, binding = 0) uniform samplerBuffer P;
layout(set = 0, binding = 1, std430) writeonly buffer DW { float dweight[]; };
layout(set = 0, binding = 2, std430) writeonly buffer DB { float dbias[]; };
layout(push_constant) uniform Push { Conv2dWeightReduceArgs a; };
void main() {
  const uint i = group_1d() * 256u + gl_LocalInvocationIndex;
  if (i >= a.n) return;
  const uint columns4 = a.taps * a.channels4, o = i / (columns4 + 1u), column = i - o * (columns4 + 1u);
  vec4 sum = vec4(0);
  for (uint s = 0u; s < a.splits; ++s) sum += texelFetch(P, int(i + s * a.rows * (columns4 + 1u)));
  if (column == columns4) {
    if (a.has_bias != 0u) dbias[o] = sum.x;
    return;
  }
  const uint tap = column / a.channels4, c = (column - tap * a.channels4) * 4u;
  for (uint k = 0u; k < 4u; ++k) {
    if (c + k < a.channels) dweight[(o * a.channels + c + k) * a.taps + tap] = sum[k];
  }
}
