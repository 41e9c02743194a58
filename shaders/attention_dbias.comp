#version 450
// The gradient of the bias for queries [q0, q0 + slab_rows): dS[batch, heads, slab_rows, ld] added over the batch.
#extension GL_GOOGLE_include_directive : require
#include "attention.args.h"
#include "index.glsl"

layout(local_size_x_id = 0) in;
layout(constant_id = 0) const uint LOCAL = 256;

layout(set = 0, binding = 0) uniform samplerBuffer Ds;
layout(set = 0, binding = 1) writeonly buffer Dbias { float dbias[]; };  // [heads, nq, nk]
layout(push_constant) uniform Push { AttentionDbiasArgs a; };

void main() {
  const uint i = group_1d() * LOCAL + gl_LocalInvocationIndex;
  const uint per_batch = a.heads * a.slab_rows * a.ld4;
  if (i >= per_batch) return;
  vec4 sum = vec4(0);
  for (uint b = 0; b < a.batch; b++) sum += texelFetch(Ds, int(b * per_batch + i));
  const uint h = i / (a.slab_rows * a.ld4), q = a.q0 + i / a.ld4 % a.slab_rows, k0 = 4 * (i % a.ld4);
  for (uint j = 0; j < 4; j++) {
    if (k0 + j < a.nk) dbias[(h * a.nq + q) * a.nk + k0 + j] = sum[j];
  }
}
