//@variant f32
//@variant wide int64 WIDE=1
#version 450
// AdamW over flat buffers, in place. An invocation reads and writes only its own elements, so the texel and
// the storage binding of one buffer never conflict.
#extension GL_GOOGLE_include_directive : require
#include "adamw.args.h"
#include "flat.glsl"
layout(constant_id = 1) const uint HAS_SCALE = 0;
layout(constant_id = 2) const uint HAS_MASK = 0;
layout(set = 0, binding = 0) uniform samplerBuffer P;
layout(set = 0, binding = 1) uniform samplerBuffer G;
layout(set = 0, binding = 2) uniform samplerBuffer M;
layout(set = 0, binding = 3) uniform samplerBuffer V;
layout(set = 0, binding = 4) readonly buffer GradScale { float grad_scale[]; };
layout(set = 0, binding = 5) readonly buffer DecayMask { uint decay_mask[]; };  // a byte per 16 units
layout(set = 0, binding = 6) writeonly buffer POut { WIDE_VEC p_out[]; };
layout(set = 0, binding = 7) writeonly buffer MOut { WIDE_VEC m_out[]; };
layout(set = 0, binding = 8) writeonly buffer VOut { WIDE_VEC v_out[]; };
layout(push_constant) uniform Push { AdamWArgs a; };

void update(uint i, out vec4 p, out vec4 m, out vec4 v) {
  vec4 g = texelFetch(G, int(i));
  if (HAS_SCALE != 0) g *= grad_scale[0];
  float decay = a.decay;
  if (HAS_MASK != 0) {
    const uint slot = i >> 4;
    if ((decay_mask[slot >> 2] >> (8 * (slot & 3)) & 255u) == 0) decay = 1;
  }
  m = a.beta1 * texelFetch(M, int(i)) + a.rest1 * g;
  v = a.beta2 * texelFetch(V, int(i)) + a.rest2 * g * g;
  const vec4 denominator = sqrt(v) * a.inv_sqrt_correction2 + a.eps;
  p = texelFetch(P, int(i)) * decay - a.step_size * (m / denominator);
}

void main() {
  // A scale that isn't finite: nothing is changed.
  if (HAS_SCALE != 0 && (floatBitsToUint(grad_scale[0]) & 0x7f800000u) == 0x7f800000u) return;
  EACH(i, a.units / WIDTH) {
    vec4 p[WIDTH], m[WIDTH], v[WIDTH];
    [[unroll]] for (uint k = 0; k < WIDTH; ++k) update(i * WIDTH + k, p[k], m[k], v[k]);
    STORE_WIDE(p_out, i, p);
    STORE_WIDE(m_out, i, m);
    STORE_WIDE(v_out, i, v);
  }
}
