//@variant f32
//@variant wide int64 WIDE=1
#version 450
// y = keep y + take x over flat buffers; BY_TENSOR: y = y * x[0].
#extension GL_GOOGLE_include_directive : require
#include "blend_inplace.args.h"
#include "flat.glsl"
layout(constant_id = 1) const uint BY_TENSOR = 0;
layout(set = 0, binding = 0) uniform samplerBuffer Y;
layout(set = 0, binding = 1) uniform samplerBuffer X;
layout(set = 0, binding = 2) writeonly buffer YOut { WIDE_VEC y_out[]; };
layout(push_constant) uniform Push { BlendInplaceArgs a; };

void main() {
  EACH(i, a.units / WIDTH) {
    vec4 v[WIDTH];
    [[unroll]] for (uint k = 0; k < WIDTH; ++k) {
      const int at = int(i * WIDTH + k);
      const vec4 y = texelFetch(Y, at);
      v[k] = BY_TENSOR != 0 ? y * texelFetch(X, 0).x : a.keep * y + a.take * texelFetch(X, at);
    }
    STORE_WIDE(y_out, i, v);
  }
}
