#version 450
// One part qkv[B, n, 3 H D] -> its tokens of q, k, v [B, H, N, D]: RMS norm of q and k per head, scale, rotation.
#extension GL_GOOGLE_include_directive : require
#include "head_team.glsl"
#include "qk_norm_rope.args.h"
layout(set = 0, binding = 0) uniform samplerBuffer QKV;
layout(set = 0, binding = 1) uniform samplerBuffer QScale;
layout(set = 0, binding = 2) uniform samplerBuffer KScale;
layout(set = 0, binding = 3) uniform samplerBuffer Rope;
layout(set = 0, binding = 4) writeonly buffer Q { vec4 q_out[]; };
layout(set = 0, binding = 5) writeonly buffer K { vec4 k_out[]; };
layout(set = 0, binding = 6) writeonly buffer V { vec4 v_out[]; };
layout(set = 0, binding = 7) writeonly buffer Rstd { vec2 rstd_out[]; };  // of q and k, [B, n, H]
layout(push_constant) uniform Push { QkNormRopeArgs a; };

void main() {
  const uint units = a.head_dim / UNIT, count = a.tokens * a.heads, b = gl_WorkGroupID.y;
  const bool inside = team_index() < count;
  const uint item = min(team_index(), count - 1), token = item / a.heads, head = item - token * a.heads;
  const uint row = b * a.tokens + token;
  const uint q_base = (row * 3 * a.heads + head) * units, k_base = q_base + a.heads * units;
  const uint v_base = k_base + a.heads * units;
  vec4 qq = vec4(0), kk = vec4(0);
  for (uint u = team_lane(); u < units; u += TEAM) {
    const vec4 q = LOAD_UNIT(QKV, q_base + u), k = LOAD_UNIT(QKV, k_base + u);
    qq += q * q;
    kk += k * k;
  }
  const vec2 squares = team_sum(vec2(qq.x + qq.y + qq.z + qq.w, kk.x + kk.y + kk.z + kk.w));
  const vec2 rstd = inversesqrt(squares / float(a.head_dim) + a.eps);
  if (!inside) return;
  if (team_lane() == 0) rstd_out[row * a.heads + head] = rstd;
  const uint position = a.first_token + token;
  const uint out_base = ((b * a.heads + head) * a.joined_tokens + position) * units;
  const uint rope_base = (b * a.rope_batch * a.joined_tokens + position) * units;
  for (uint u = team_lane(); u < units; u += TEAM) {
    vec4 q = LOAD_UNIT(QKV, q_base + u) * rstd.x * LOAD_UNIT(QScale, u);
    vec4 k = LOAD_UNIT(QKV, k_base + u) * rstd.y * LOAD_UNIT(KScale, u);
    if (HAS_ROPE != 0) {
      const vec4 r = LOAD_UNIT(Rope, rope_base + u);
      q = rotate(q, r, 1);
      k = rotate(k, r, 1);
    }
    STORE_UNIT(q_out, out_base + u, q)
    STORE_UNIT(k_out, out_base + u, k)
    const vec4 v = LOAD_UNIT(QKV, v_base + u);
    STORE_UNIT(v_out, out_base + u, v)
  }
}
