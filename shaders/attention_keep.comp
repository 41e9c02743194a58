#version 450
// Key mask u8 [batch, nk] -> f32 [batch, ld], 1 where the key is kept, 0 elsewhere and in the padding.
#extension GL_GOOGLE_include_directive : require
#include "attention.args.h"
#include "index.glsl"

layout(local_size_x_id = 0) in;
layout(constant_id = 0) const uint LOCAL = 256;

layout(set = 0, binding = 0) readonly buffer Mask { uint mask[]; };
layout(set = 0, binding = 1) writeonly buffer Keep { vec4 keep[]; };
layout(push_constant) uniform Push { AttentionKeepArgs a; };

void main() {
  const uint i = group_1d() * LOCAL + gl_LocalInvocationIndex;
  if (i >= a.batch * a.ld4) return;
  const uint b = i / a.ld4, k0 = 4 * (i % a.ld4);
  vec4 x = vec4(0);
  for (uint j = 0; j < 4; j++) {
    if (k0 + j >= a.nk) continue;
    const uint at = b * a.nk + k0 + j;
    x[j] = (mask[at / 4] >> (8 * (at % 4)) & 255u) != 0 ? 1.0 : 0.0;
  }
  keep[i] = x;
}
