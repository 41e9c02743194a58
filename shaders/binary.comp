// y = a (op) b with broadcasting strides; y contiguous, one vec4 an invocation.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "binary.args.h"
#include "index.glsl"

layout(constant_id = 0) const uint LOCAL = 256;
layout(constant_id = 1) const uint OP = 0;  // add, sub, mul, div
layout(constant_id = 2) const uint RANK = 1;
layout(constant_id = 3) const uint A_MODE = 1;  // INNER_*
layout(constant_id = 4) const uint B_MODE = 1;
layout(constant_id = 5) const uint WHOLE = 1;  // 0: rows aren't whole vectors
layout(local_size_x_id = 0) in;
layout(set = 0, binding = 0) uniform samplerBuffer A;
layout(set = 0, binding = 1) uniform samplerBuffer B;
layout(set = 0, binding = 2) writeonly buffer Y { vec4 y[]; };
layout(push_constant) uniform Push { BinaryArgs a; };
#include "strided.glsl"

void main() {
  const uint at = group_1d() * LOCAL + gl_LocalInvocationID.x;
  vec4 u, v;
  if (WHOLE == 0u) {
    const uint e = 4u * at;
    if (e >= a.count) return;
    [[unroll]] for (uint k = 0u; k < 4u; ++k) {
      uint i = a.a_offset, j = a.b_offset;
      const uint element = min(e + k, a.count - 1u) + a.first;
      STRIDED_INDEX2(RANK, element, i, a.a_stride, j, a.b_stride)
      u[k] = ELEMENT(A, i);
      v[k] = ELEMENT(B, j);
    }
  } else {
    if (at >= a.count) return;
    uint i = a.a_offset, j = a.b_offset;
    STRIDED_INDEX2(RANK, at + a.first, i, a.a_stride, j, a.b_stride)
    LOAD4(u, A, A_MODE, i, (a.a_stride[0] >> 2))
    LOAD4(v, B, B_MODE, j, (a.b_stride[0] >> 2))
  }
  if (OP == 0u) {
    y[at] = u + v;
  } else if (OP == 1u) {
    y[at] = u - v;
  } else if (OP == 2u) {
    y[at] = u * v;
  } else {
    y[at] = u / v;
  }
}
