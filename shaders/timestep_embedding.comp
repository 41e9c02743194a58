#version 450
// y[b] = cos, then sin of (time_factor s[b]) w_k, k < dim / 2; an odd last element is 0.
#extension GL_GOOGLE_include_directive : require
layout(constant_id = 0) const uint LOCAL = 64;
layout(local_size_x_id = 0) in;
#include "sincos.glsl"
#include "timestep_embedding.args.h"
layout(set = 0, binding = 0) readonly buffer S { float s_in[]; };
layout(set = 0, binding = 1) readonly buffer W { float w[]; };
layout(set = 0, binding = 2) writeonly buffer Y { float y[]; };
layout(push_constant) uniform Push { TimestepEmbeddingArgs a; };

void main() {
  const uint k = gl_WorkGroupID.x * LOCAL + gl_LocalInvocationIndex, b = gl_WorkGroupID.y;
  const uint waves = a.dim / 2, base = b * a.dim;
  if (k < waves) {
    float s, c;
    sincos(a.time_factor * s_in[b] * w[k], s, c);
    y[base + k] = c;
    y[base + waves + k] = s;
  } else if (k == waves && (a.dim & 1u) != 0) {
    y[base + a.dim - 1] = 0;
  }
}
