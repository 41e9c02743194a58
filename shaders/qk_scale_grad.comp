#version 450
// Partial sums of the gradients of q_scale and k_scale: an invocation owns one unit of the head vector and walks
// over a chunk of token rows and all heads -> [chunks, D] each.
#extension GL_GOOGLE_include_directive : require
layout(constant_id = 0) const uint LOCAL = 32;
layout(constant_id = 1) const uint UNIT = 4;
layout(constant_id = 2) const uint HAS_ROPE = 1;
layout(local_size_x_id = 0) in;
#include "qk_scale_grad.args.h"
#include "rotate.glsl"
layout(set = 0, binding = 0) uniform samplerBuffer QKV;
layout(set = 0, binding = 1) uniform samplerBuffer Rope;
layout(set = 0, binding = 2) uniform samplerBuffer DQ;
layout(set = 0, binding = 3) uniform samplerBuffer DK;
layout(set = 0, binding = 4) readonly buffer Rstd { vec2 rstd_in[]; };
layout(set = 0, binding = 5) writeonly buffer QPartial { vec4 q_partial[]; };
layout(set = 0, binding = 6) writeonly buffer KPartial { vec4 k_partial[]; };
layout(push_constant) uniform Push { QkScaleGradArgs a; };

void main() {
  const uint units = a.head_dim / UNIT, u = gl_WorkGroupID.x * LOCAL + gl_LocalInvocationIndex;
  if (u >= units) return;
  const uint first = gl_WorkGroupID.y * a.rows_per_chunk;
  const uint last = min(first + a.rows_per_chunk, a.batch * a.tokens);
  vec4 sq = vec4(0), sk = vec4(0);
  for (uint row = first; row < last; ++row) {
    const uint b = row / a.tokens, position = a.first_token + row - b * a.tokens;
    vec4 r = vec4(0);
    if (HAS_ROPE != 0) r = LOAD_UNIT(Rope, (b * a.rope_batch * a.joined_tokens + position) * units + u);
    for (uint head = 0; head < a.heads; ++head) {
      const uint g = ((b * a.heads + head) * a.joined_tokens + position) * units + u;
      const uint q = (row * 3 * a.heads + head) * units + u;
      vec4 gq = LOAD_UNIT(DQ, g), gk = LOAD_UNIT(DK, g);
      if (HAS_ROPE != 0) {
        gq = rotate(gq, r, -1);
        gk = rotate(gk, r, -1);
      }
      const vec2 rstd = rstd_in[row * a.heads + head];
      sq += gq * LOAD_UNIT(QKV, q) * rstd.x;
      sk += gk * LOAD_UNIT(QKV, q + a.heads * units) * rstd.y;
    }
  }
  const uint o = gl_WorkGroupID.y * units + u;
  STORE_UNIT(q_partial, o, sq)
  STORE_UNIT(k_partial, o, sk)
}
