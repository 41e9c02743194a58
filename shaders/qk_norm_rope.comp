#version 450
//@variant f32
//@variant wide int64 WIDE=1
// One part qkv[B, n, 3 H D] -> its tokens of q, k, v [B, H, N, D]: RMS norm of q and k per head, scale, rotation.
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#ifdef WIDE
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_shuffle : require
#endif
#include "head_team.glsl"
#include "qk_norm_rope.args.h"
#include "wide.glsl"
layout(set = 0, binding = 0) uniform samplerBuffer QKV;
layout(set = 0, binding = 1) uniform samplerBuffer QScale;
layout(set = 0, binding = 2) uniform samplerBuffer KScale;
layout(set = 0, binding = 3) uniform samplerBuffer Rope;
layout(set = 0, binding = 4) writeonly buffer Q { WIDE_VEC q_out[]; };
layout(set = 0, binding = 5) writeonly buffer K { WIDE_VEC k_out[]; };
layout(set = 0, binding = 6) writeonly buffer V { WIDE_VEC v_out[]; };
layout(set = 0, binding = 7) writeonly buffer Rstd { vec2 rstd_out[]; };  // of q and k, [B, n, H]
layout(push_constant) uniform Push { QkNormRopeArgs a; };

#ifdef WIDE
// A workgroup is one SIMD vector of a CPU and takes all heads of a token, LOCAL / TEAM at a time: the invocations of a team
// share a head, PER groups of two vec4 each, and keep it in registers between the sums and the rotation.
layout(constant_id = 4) const uint PER = 2;

float across(float x) {
  [[unroll]] for (uint m = 1; m < TEAM; m *= 2) x += subgroupShuffle(x, gl_SubgroupInvocationID ^ m);
  return x;
}

// Group g of a row, zero for invocations without one.
void load(out vec4 v[2], uint base, uint g, uint groups) {
  const uint at = (base + min(g, groups - 1)) * 2;
  [[unroll]] for (uint k = 0; k < 2; ++k) v[k] = g < groups ? texelFetch(QKV, int(at + k)) : vec4(0);
}

void main() {
  const uint groups = a.head_dim / 8, token = gl_WorkGroupID.x, b = gl_WorkGroupID.y;
  const uint row = b * a.tokens + token, position = a.first_token + token;
  const uint lane = gl_SubgroupInvocationID % TEAM, team = gl_SubgroupInvocationID / TEAM;
  vec4 q_scale[PER][2], k_scale[PER][2], turn[PER][2];
  [[unroll]] for (uint p = 0; p < PER; ++p) {
    [[unroll]] for (uint k = 0; k < 2; ++k) {
      const uint unit = min(p * TEAM + lane, groups - 1) * 2 + k;
      q_scale[p][k] = texelFetch(QScale, int(unit));
      k_scale[p][k] = texelFetch(KScale, int(unit));
      if (HAS_ROPE != 0) turn[p][k] = texelFetch(Rope, int((b * a.rope_batch * a.joined_tokens + position) * groups * 2 + unit));
    }
  }
  for (uint first = 0; first < a.heads; first += LOCAL / TEAM) {
    const uint head = min(first + team, a.heads - 1);
    const uint q_base = (row * 3 * a.heads + head) * groups, k_base = q_base + a.heads * groups;
    const uint out_base = ((b * a.heads + head) * a.joined_tokens + position) * groups;
    vec4 q[PER][2], k[PER][2], qq = vec4(0), kk = vec4(0);
    [[unroll]] for (uint p = 0; p < PER; ++p) {
      load(q[p], q_base, p * TEAM + lane, groups);
      load(k[p], k_base, p * TEAM + lane, groups);
      qq += q[p][0] * q[p][0] + q[p][1] * q[p][1];
      kk += k[p][0] * k[p][0] + k[p][1] * k[p][1];
    }
    const vec2 squares = vec2(across(qq.x + qq.y + qq.z + qq.w), across(kk.x + kk.y + kk.z + kk.w));
    const vec2 rstd = inversesqrt(squares / float(a.head_dim) + a.eps);
    if (lane == 0) rstd_out[row * a.heads + head] = rstd;
    [[unroll]] for (uint p = 0; p < PER; ++p) {
      const uint g = p * TEAM + lane;
      vec4 v[2];
      load(v, k_base + a.heads * groups, g, groups);
      [[unroll]] for (uint i = 0; i < 2; ++i) {
        q[p][i] *= rstd.x * q_scale[p][i];
        k[p][i] *= rstd.y * k_scale[p][i];
        if (HAS_ROPE != 0) {
          q[p][i] = rotate(q[p][i], turn[p][i], 1);
          k[p][i] = rotate(k[p][i], turn[p][i], 1);
        }
      }
      if (g < groups) {
        STORE_WIDE(q_out, out_base + g, q[p]);
        STORE_WIDE(k_out, out_base + g, k[p]);
        STORE_WIDE(v_out, out_base + g, v);
      }
    }
  }
}
#else
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
#endif
