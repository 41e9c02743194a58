// Copies 4-byte elements between strided layouts, bit for bit.
//   f32      destination contiguous, one vec4 an invocation
//   row      both strided, aligned rows of whole vectors
//   element  both strided, one element an invocation
//@variant f32
//@variant row ROWS=1
//@variant element ELEMENT_WISE=1
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "copy.args.h"
#include "index.glsl"

layout(constant_id = 0) const uint LOCAL = 256;
layout(constant_id = 1) const uint RANK = 1;
// INNER_*, or 3: the innermost rows aren't whole vectors, so every element's index is computed.
layout(constant_id = 2) const uint MODE = 1;
layout(local_size_x_id = 0) in;
layout(set = 0, binding = 0) uniform usamplerBuffer X;
#ifdef ELEMENT_WISE
layout(set = 0, binding = 1) writeonly buffer Y { uint y[]; };
#else
layout(set = 0, binding = 1) writeonly buffer Y { uvec4 y[]; };
#endif
layout(push_constant) uniform Push { CopyArgs a; };
#include "strided.glsl"

void main() {
  const uint at = group_1d() * LOCAL + gl_LocalInvocationID.x;
#ifdef ELEMENT_WISE
  if (at >= a.count) return;
  uint i = a.src_offset, o = a.dst_offset;
  STRIDED_INDEX2(RANK, at + a.first, i, a.src_stride, o, a.dst_stride)
  y[o] = ELEMENT(X, i);
#elif defined(ROWS)
  if (at >= a.count) return;
  uint i = a.src_offset, o = a.dst_offset;
  STRIDED_INDEX2(RANK, at + a.first, i, a.src_stride, o, a.dst_stride)
  y[o >> 2] = texelFetch(X, int(i >> 2));
#else
  uvec4 v;
  if (MODE == 3u) {
    const uint e = 4u * at;
    if (e >= a.count) return;
    [[unroll]] for (uint k = 0u; k < 4u; ++k) {
      uint i = a.src_offset;
      const uint element = min(e + k, a.count - 1u) + a.first;
      STRIDED_INDEX1(RANK, element, i, a.src_stride)
      v[k] = ELEMENT(X, i);
    }
  } else {
    if (at >= a.count) return;
    uint i = a.src_offset;
    STRIDED_INDEX1(RANK, at + a.first, i, a.src_stride)
    LOAD4(v, X, MODE, i, (a.src_stride[0] >> 2))
  }
  y[at] = v;
#endif
}
