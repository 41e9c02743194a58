// As many multiply-adds as the device can do: 12 independent chains of them per invocation, in registers. 384 flops per
// invocation and round.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "peak_flops.args.h"

layout(constant_id = 0) const uint LOCAL = 64;
layout(local_size_x_id = 0) in;
layout(set = 0, binding = 0) writeonly buffer Y { vec4 y[]; };
layout(push_constant) uniform Push { PeakFlopsArgs a; };

void main() {
  const vec4 start = vec4(1.0, 1.125, 1.25, 1.375) + float(gl_LocalInvocationIndex) * 0.001;
  vec4 u = start, v = start + 0.1, w = start + 0.2;
  for (uint r = 0; r < a.rounds; ++r) {
    [[unroll]] for (int i = 0; i < 16; ++i) {
      u = u * a.scale + a.shift;
      v = v * a.scale + a.shift;
      w = w * a.scale + a.shift;
    }
  }
  y[gl_GlobalInvocationID.x] = u + v + w;
}
