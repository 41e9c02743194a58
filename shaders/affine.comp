// y = x * scale + shift
//@variant f32
//@variant wide int64 WIDE=1
#version 450
#extension GL_GOOGLE_include_directive : require
#include "affine.args.h"
#include "flat.glsl"

layout(set = 0, binding = 0) uniform samplerBuffer X;
layout(set = 0, binding = 1) writeonly buffer Y { WIDE_VEC y[]; };
layout(push_constant) uniform Push { AffineArgs a; };

void main() {
  EACH(i, (a.count + 3) / 4 / WIDTH) {
    vec4 v[WIDTH];
    [[unroll]] for (uint k = 0; k < WIDTH; ++k) v[k] = texelFetch(X, int(i * WIDTH + k)) * a.scale + a.shift;
    STORE_WIDE(y, i, v);
  }
}
