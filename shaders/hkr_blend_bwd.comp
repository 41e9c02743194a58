#version 450
// Gradients of hkr_blend, none through the gate's statistics: of the branches, and per row the parts of those of the
// conditioner's four numbers and of alpha, eight numbers (the last three zero).
#extension GL_GOOGLE_include_directive : require
#include "hkr_blend.args.h"
#include "hkr_blend.glsl"
layout(set = 0, binding = 3) uniform samplerBuffer Gate;
layout(set = 0, binding = 4) uniform samplerBuffer DY;
layout(set = 0, binding = 5) writeonly buffer DKernel { vec4 d_kernel[]; };
layout(set = 0, binding = 6) writeonly buffer DLand { vec4 d_land[]; };
layout(set = 0, binding = 7) writeonly buffer Parts { vec4 parts[]; };
layout(push_constant) uniform Push { HkrBlendArgs a; };

void main() {
  const uint row = group_1d();
  if (row >= a.rows) return;
  const uint units = UNITS(a.cols), base = row * units;
  const vec4 c = conditioner();
  const float s = LOAD1(Gate, row), weight = a.alpha_max * s;
  vec4 plain = vec4(0), with_kernel = vec4(0), with_land = vec4(0), along = vec4(0);
  for (uint i = row_lane(); i < units; i += LANES) {
    const vec4 g = LOAD(DY, base + i);
    along += g * (land_at(base + i, c) - kernel_at(base + i, c));
    if (CONDITIONED != 0) {
      plain += g;
      with_kernel += g * LOAD(Kernel, base + i);
      with_land += g * LOAD(Land, base + i);
    }
    const vec4 dk = (1 + c.x) * (1 - weight) * g, dl = (1 + c.z) * weight * g;
    STORE(d_kernel, base + i, dk);
    STORE(d_land, base + i, dl);
  }
  vec4 condition = vec4(0);
  if (CONDITIONED != 0) {
    const float sum = row_sum(plain);
    condition = vec4((1 - weight) * row_sum(with_kernel), (1 - weight) * sum, weight * row_sum(with_land), weight * sum);
  }
  const float d_alpha = row_sum(along) * weight * (1 - s);
  if (row_lane() == 0) {
    parts[2 * row] = condition;
    parts[2 * row + 1] = vec4(d_alpha, 0, 0, 0);
  }
}
