#version 450
// Gradient of qk_norm_rope with respect to one part: dq, dk, dv [B, H, N, D] -> dqkv [B, n, 3 H D].
#extension GL_GOOGLE_include_directive : require
#include "head_team.glsl"
#include "qk_norm_rope.args.h"
layout(set = 0, binding = 0) uniform samplerBuffer QKV;
layout(set = 0, binding = 1) uniform samplerBuffer QScale;
layout(set = 0, binding = 2) uniform samplerBuffer KScale;
layout(set = 0, binding = 3) uniform samplerBuffer Rope;
layout(set = 0, binding = 4) uniform samplerBuffer DQ;
layout(set = 0, binding = 5) uniform samplerBuffer DK;
layout(set = 0, binding = 6) uniform samplerBuffer DV;
layout(set = 0, binding = 7) readonly buffer Rstd { vec2 rstd_in[]; };
layout(set = 0, binding = 8) writeonly buffer DQKV { vec4 dqkv[]; };
layout(push_constant) uniform Push { QkNormRopeArgs a; };

// Gradient with respect to the normalised vector.
vec4 unrotated(vec4 g, uint i) {
  if (HAS_ROPE != 0) g = rotate(g, LOAD_UNIT(Rope, i), -1);
  return g;
}

void main() {
  const uint units = a.head_dim / UNIT, count = a.tokens * a.heads, b = gl_WorkGroupID.y;
  const bool inside = team_index() < count;
  const uint item = min(team_index(), count - 1), token = item / a.heads, head = item - token * a.heads;
  const uint row = b * a.tokens + token;
  const uint q_base = (row * 3 * a.heads + head) * units, k_base = q_base + a.heads * units;
  const uint v_base = k_base + a.heads * units;
  const uint position = a.first_token + token;
  const uint g_base = ((b * a.heads + head) * a.joined_tokens + position) * units;
  const uint rope_base = (b * a.rope_batch * a.joined_tokens + position) * units;
  const vec2 rstd = rstd_in[row * a.heads + head];
  vec4 sq = vec4(0), sk = vec4(0);
  for (uint u = team_lane(); u < units; u += TEAM) {
    const vec4 gq = unrotated(LOAD_UNIT(DQ, g_base + u), rope_base + u) * LOAD_UNIT(QScale, u);
    const vec4 gk = unrotated(LOAD_UNIT(DK, g_base + u), rope_base + u) * LOAD_UNIT(KScale, u);
    sq += gq * LOAD_UNIT(QKV, q_base + u);
    sk += gk * LOAD_UNIT(QKV, k_base + u);
  }
  // mean(g xhat) rstd^2, so that dx = rstd g - x times it
  const vec2 dots = team_sum(vec2(sq.x + sq.y + sq.z + sq.w, sk.x + sk.y + sk.z + sk.w));
  const vec2 along = dots * rstd * rstd * rstd / float(a.head_dim);
  if (!inside) return;
  for (uint u = team_lane(); u < units; u += TEAM) {
    const vec4 gq = unrotated(LOAD_UNIT(DQ, g_base + u), rope_base + u) * LOAD_UNIT(QScale, u);
    const vec4 gk = unrotated(LOAD_UNIT(DK, g_base + u), rope_base + u) * LOAD_UNIT(KScale, u);
    const vec4 dq = rstd.x * gq - along.x * LOAD_UNIT(QKV, q_base + u);
    const vec4 dk = rstd.y * gk - along.y * LOAD_UNIT(QKV, k_base + u);
    const vec4 dv = LOAD_UNIT(DV, g_base + u);
    STORE_UNIT(dqkv, q_base + u, dq)
    STORE_UNIT(dqkv, k_base + u, dk)
    STORE_UNIT(dqkv, v_base + u, dv)
  }
}
