#version 450
// y = keep y + take x over flat buffers; BY_TENSOR: y = y * x[0].
#extension GL_GOOGLE_include_directive : require
#include "blend_inplace.args.h"
#include "index.glsl"
layout(constant_id = 0) const uint LOCAL = 256;
layout(constant_id = 1) const uint BY_TENSOR = 0;
layout(local_size_x_id = 0) in;
layout(set = 0, binding = 0) uniform samplerBuffer Y;
layout(set = 0, binding = 1) uniform samplerBuffer X;
layout(set = 0, binding = 2) writeonly buffer YOut { vec4 y_out[]; };
layout(push_constant) uniform Push { BlendInplaceArgs a; };

void main() {
  const uint i = group_1d() * LOCAL + gl_LocalInvocationIndex;
  if (i >= a.units) return;
  const vec4 y = texelFetch(Y, int(i));
  if (BY_TENSOR != 0) {
    y_out[i] = y * texelFetch(X, 0).x;
  } else {
    y_out[i] = a.keep * y + a.take * texelFetch(X, int(i));
  }
}
