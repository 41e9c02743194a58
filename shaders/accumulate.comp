// dst += x: x contiguous.
//   f32      destination contiguous; components past the end keep their value
//   wide     the same, whole pairs of vec4
//   row      destination strided, rows of whole vectors
//   element  destination strided, one element an invocation
//@variant f32
//@variant wide int64 WIDE=1
//@variant row ROWS=1
//@variant element ELEMENT_WISE=1
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "accumulate.args.h"
#include "flat.glsl"

layout(constant_id = 1) const uint RANK = 1;
layout(set = 0, binding = 0) uniform samplerBuffer X;
#ifdef ELEMENT_WISE
layout(set = 0, binding = 1) buffer Dst { float dst[]; };
#else
// The same memory twice: each vec4 is read and then written by one invocation alone.
layout(set = 0, binding = 1) uniform samplerBuffer Old;
layout(set = 0, binding = 2) writeonly buffer Dst { WIDE_VEC dst[]; };
#endif
layout(push_constant) uniform Push { AccumulateArgs a; };
#include "strided.glsl"

void main() {
#ifdef ELEMENT_WISE
  EACH(at, a.count) {
    uint o = a.dst_offset;
    STRIDED_INDEX1(RANK, at, o, a.dst_stride)
    dst[o] += ELEMENT(X, at);
  }
#elif defined(ROWS)
  EACH(at, (a.count + 3u) / 4u) {
    uint o = a.dst_offset;
    STRIDED_INDEX1(RANK, at, o, a.dst_stride)
    dst[o >> 2] = texelFetch(Old, int(o >> 2)) + texelFetch(X, int(at));
  }
#else
  EACH(at, (a.count + 3u) / 4u / WIDTH) {
    vec4 v[WIDTH];
    [[unroll]] for (uint k = 0u; k < WIDTH; ++k) {
      const uint unit = at * WIDTH + k;
      vec4 x = texelFetch(X, int(unit));
      if (WIDTH == 1u) x = mix(vec4(0), x, lessThan(uvec4(4u * unit) + uvec4(0, 1, 2, 3), uvec4(a.count)));
      v[k] = texelFetch(Old, int(unit)) + x;
    }
    STORE_WIDE(dst, at, v);
  }
#endif
}
