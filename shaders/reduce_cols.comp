// Sums down the columns of [outer, rows, inner]: y[outer, chunk, inner], each invocation over one chunk of rows in
// order.
//   f32      four columns an invocation
//   element  one column
//@variant f32
//@variant element ELEMENT_WISE=1
#version 450
#extension GL_GOOGLE_include_directive : require
#include "index.glsl"
#include "reduce.args.h"

layout(constant_id = 0) const uint LOCAL = 64;
layout(local_size_x_id = 0) in;
layout(set = 0, binding = 0) uniform samplerBuffer X;
#ifdef ELEMENT_WISE
layout(set = 0, binding = 1) writeonly buffer Y { float y[]; };
#else
layout(set = 0, binding = 1) writeonly buffer Y { vec4 y[]; };
#endif
layout(push_constant) uniform Push { ReduceColsArgs a; };

void main() {
  const uint at = group_1d() * LOCAL + gl_LocalInvocationID.x;
  if (at >= a.count) return;
#ifdef ELEMENT_WISE
  const uint columns = a.inner;
#else
  const uint columns = a.inner / 4u;
#endif
  const uint column = at % columns, rest = at / columns, chunk = rest % a.chunks, outer = rest / a.chunks;
  const uint begin = chunk * a.chunk, full = a.extent / a.inner, end = min(begin + a.chunk, full);
  const bool last = begin + a.chunk > full && full * a.inner < a.extent;
#ifdef ELEMENT_WISE
  float sum = 0.0;
  uint i = outer * a.extent + begin * a.inner + column;
  for (uint n = begin; n < end; ++n) {
    sum += texelFetch(X, int(i >> 2))[i & 3u];
    i += a.inner;
  }
  if (last && full * a.inner + column < a.extent) {
    i = outer * a.extent + full * a.inner + column;
    sum += texelFetch(X, int(i >> 2))[i & 3u];
  }
#else
  vec4 sum = vec4(0);
  uint i = outer * (a.extent / 4u) + begin * columns + column;
  for (uint n = begin; n < end; ++n) {
    sum += texelFetch(X, int(i));
    i += columns;
  }
  if (last) {
    const uvec4 element = uvec4(full * a.inner + 4u * column) + uvec4(0, 1, 2, 3);
    i = outer * (a.extent / 4u) + full * columns + column;
    if (element.x < a.extent) sum += mix(vec4(0), texelFetch(X, int(i)), lessThan(element, uvec4(a.extent)));
  }
#endif
  y[at] = sum * a.scale;
}
