// y = a (op) b with broadcasting strides; y contiguous.
//@variant f32
//@variant wide int64 WIDE=1
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "binary.args.h"
#include "flat.glsl"

layout(constant_id = 1) const uint OP = 0;  // add, sub, mul, div
layout(constant_id = 2) const uint RANK = 1;
layout(constant_id = 3) const uint A_MODE = 1;  // INNER_*
layout(constant_id = 4) const uint B_MODE = 1;
layout(constant_id = 5) const uint WHOLE = 1;  // 0: rows aren't whole vectors
layout(set = 0, binding = 0) uniform samplerBuffer A;
layout(set = 0, binding = 1) uniform samplerBuffer B;
layout(set = 0, binding = 2) writeonly buffer Y { WIDE_VEC y[]; };
layout(push_constant) uniform Push { BinaryArgs a; };
#include "strided.glsl"

// Four results from group `at` on.
vec4 value(uint at) {
  vec4 u, v;
  if (WHOLE == 0u) {
    [[unroll]] for (uint k = 0u; k < 4u; ++k) {
      uint i = a.a_offset, j = a.b_offset;
      const uint element = min(4u * at + k, a.count - 1u) + a.first;
      STRIDED_INDEX2(RANK, element, i, a.a_stride, j, a.b_stride)
      u[k] = ELEMENT(A, i);
      v[k] = ELEMENT(B, j);
    }
  } else {
    uint i = a.a_offset, j = a.b_offset;
    if (RANK == 1u && A_MODE == INNER_VECTOR && B_MODE == INNER_VECTOR) {
      i += 4u * (at + a.first);
      j += 4u * (at + a.first);
    } else {
      STRIDED_INDEX2(RANK, at + a.first, i, a.a_stride, j, a.b_stride)
    }
    LOAD4(u, A, A_MODE, i, (a.a_stride[0] >> 2))
    LOAD4(v, B, B_MODE, j, (a.b_stride[0] >> 2))
  }
  if (OP == 0u) {
    u += v;
  } else if (OP == 1u) {
    u -= v;
  } else if (OP == 2u) {
    u *= v;
  } else {
    u /= v;
  }
  return u;
}

void main() {
  const uint groups = WHOLE == 0u ? (a.count + 3u) / 4u : a.count;
  EACH(i, groups / WIDTH) {
    vec4 v[WIDTH];
    v[0] = value(i * WIDTH);
    if (WIDTH > 1u) v[WIDTH - 1u] = value(i * WIDTH + 1u);
    STORE_WIDE(y, i, v);
  }
}
