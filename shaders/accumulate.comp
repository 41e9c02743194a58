// dst += x: x contiguous.
//   f32      destination contiguous, one vec4 an invocation; components past the end keep their value
//   row      destination strided, rows of whole vectors
//   element  destination strided, one element an invocation
//@variant f32
//@variant row ROWS=1
//@variant element ELEMENT_WISE=1
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "accumulate.args.h"
#include "index.glsl"

layout(constant_id = 0) const uint LOCAL = 256;
layout(constant_id = 1) const uint RANK = 1;
layout(local_size_x_id = 0) in;
layout(set = 0, binding = 0) uniform samplerBuffer X;
#ifdef ELEMENT_WISE
layout(set = 0, binding = 1) buffer Dst { float dst[]; };
#else
// The same memory twice: each vec4 is read and then written by one invocation alone.
layout(set = 0, binding = 1) uniform samplerBuffer Old;
layout(set = 0, binding = 2) writeonly buffer Dst { vec4 dst[]; };
#endif
layout(push_constant) uniform Push { AccumulateArgs a; };
#include "strided.glsl"

void main() {
  const uint at = group_1d() * LOCAL + gl_LocalInvocationID.x;
#ifdef ELEMENT_WISE
  if (at >= a.count) return;
  uint o = a.dst_offset;
  STRIDED_INDEX1(RANK, at, o, a.dst_stride)
  dst[o] += ELEMENT(X, at);
#else
  if (4u * at >= a.count) return;
  vec4 x = texelFetch(X, int(at));
#ifdef ROWS
  uint o = a.dst_offset;
  STRIDED_INDEX1(RANK, at, o, a.dst_stride)
#else
  const uint o = 4u * at;
  x = mix(vec4(0), x, lessThan(uvec4(4u * at) + uvec4(0, 1, 2, 3), uvec4(a.count)));
#endif
  dst[o >> 2] = texelFetch(Old, int(o >> 2)) + x;
#endif
}
