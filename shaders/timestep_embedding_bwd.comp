#version 450
// ds[b] = sum over k of (dsin cos(angle) - dcos sin(angle)) time_factor w_k.
#extension GL_GOOGLE_include_directive : require
#include "row.glsl"
#include "sincos.glsl"
#include "timestep_embedding.args.h"
layout(set = 0, binding = 0) readonly buffer S { float s_in[]; };
layout(set = 0, binding = 1) readonly buffer W { float w[]; };
layout(set = 0, binding = 2) readonly buffer DY { float dy[]; };
layout(set = 0, binding = 3) writeonly buffer DS { float ds[]; };
layout(push_constant) uniform Push { TimestepEmbeddingArgs a; };

void main() {
  const uint b = gl_WorkGroupID.x, waves = a.dim / 2, base = b * a.dim;
  float sum = 0;
  for (uint k = row_lane(); k < waves; k += LANES) {
    float s, c;
    sincos(a.time_factor * s_in[b] * w[k], s, c);
    sum += (dy[base + waves + k] * c - dy[base + k] * s) * a.time_factor * w[k];
  }
  sum = row_sum(sum);
  if (row_lane() == 0) ds[b] = sum;
}
