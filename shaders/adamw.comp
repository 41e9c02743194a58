#version 450
// AdamW over flat buffers, in place. An invocation reads and writes only its own four elements, so the texel and
// the storage binding of one buffer never conflict.
#extension GL_GOOGLE_include_directive : require
#include "adamw.args.h"
#include "index.glsl"
layout(constant_id = 0) const uint LOCAL = 256;
layout(constant_id = 1) const uint HAS_SCALE = 0;
layout(constant_id = 2) const uint HAS_MASK = 0;
layout(local_size_x_id = 0) in;
layout(set = 0, binding = 0) uniform samplerBuffer P;
layout(set = 0, binding = 1) uniform samplerBuffer G;
layout(set = 0, binding = 2) uniform samplerBuffer M;
layout(set = 0, binding = 3) uniform samplerBuffer V;
layout(set = 0, binding = 4) readonly buffer GradScale { float grad_scale[]; };
layout(set = 0, binding = 5) readonly buffer DecayMask { uint decay_mask[]; };  // a byte per 16 units
layout(set = 0, binding = 6) writeonly buffer POut { vec4 p_out[]; };
layout(set = 0, binding = 7) writeonly buffer MOut { vec4 m_out[]; };
layout(set = 0, binding = 8) writeonly buffer VOut { vec4 v_out[]; };
layout(push_constant) uniform Push { AdamWArgs a; };

void main() {
  const uint i = group_1d() * LOCAL + gl_LocalInvocationIndex;
  if (i >= a.units) return;
  vec4 g = texelFetch(G, int(i));
  if (HAS_SCALE != 0) g *= grad_scale[0];
  float decay = a.decay;
  if (HAS_MASK != 0) {
    const uint slot = i >> 4;
    if ((decay_mask[slot >> 2] >> (8 * (slot & 3)) & 255u) == 0) decay = 1;
  }
  const vec4 m = a.beta1 * texelFetch(M, int(i)) + a.rest1 * g;
  const vec4 v = a.beta2 * texelFetch(V, int(i)) + a.rest2 * g * g;
  const vec4 denominator = sqrt(v) * a.inv_sqrt_correction2 + a.eps;
  p_out[i] = texelFetch(P, int(i)) * decay - a.step_size * (m / denominator);
  m_out[i] = m;
  v_out[i] = v;
}
