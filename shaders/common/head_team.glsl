// TEAM invocations share one head vector: 1 where lanes are cheap SIMD lanes, more where neighbours should read
// neighbouring memory. LOCAL is a multiple of TEAM. Specialisation constants 0-3 are taken.
#ifndef VKFLUX_HEAD_TEAM_GLSL
#define VKFLUX_HEAD_TEAM_GLSL
layout(constant_id = 0) const uint LOCAL = 64;
layout(constant_id = 1) const uint UNIT = 4;
layout(constant_id = 2) const uint TEAM = 1;
layout(constant_id = 3) const uint HAS_ROPE = 1;
layout(local_size_x_id = 0) in;
#include "rotate.glsl"

shared vec2 team_partial[256];

uint team_lane() { return gl_LocalInvocationIndex % TEAM; }
uint team_index() { return gl_WorkGroupID.x * (LOCAL / TEAM) + gl_LocalInvocationIndex / TEAM; }

// Every invocation of the workgroup must call it.
vec2 team_sum(vec2 x) {
  if (TEAM == 1) return x;
  team_partial[gl_LocalInvocationIndex] = x;
  barrier();
  const uint first = gl_LocalInvocationIndex / TEAM * TEAM;
  vec2 s = vec2(0);
  for (uint i = 0; i < TEAM; ++i) s += team_partial[first + i];
  barrier();
  return s;
}
#endif
