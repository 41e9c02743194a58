// Kernels over flat arrays (flat_launch() of autograd/ops/flat.h). An invocation handles WIDTH vec4 at a time: one such
// group, or with WIDE, where a workgroup is one SIMD vector of a CPU and costs as much as a hundred elements, every
// LOCAL-th of a long run. Specialisation constant 0 is taken.
#ifndef VKFLUX_FLAT_GLSL
#define VKFLUX_FLAT_GLSL
#extension GL_EXT_control_flow_attributes : require
#include "index.glsl"
#include "wide.glsl"
layout(constant_id = 0) const uint LOCAL = 256;
layout(local_size_x_id = 0) in;

// Runs the statement behind it for every i of this invocation; n: groups in all.
#ifdef WIDE
uint flat_run(uint n) {
  const uint share = gl_NumWorkGroups.x * gl_NumWorkGroups.y * LOCAL;
  return (n + share - 1) / share * LOCAL;
}
#define EACH(i, n)                                                                            \
  const uint i##_run = flat_run(n), i##_end = min((group_1d() + 1) * i##_run, n);             \
  for (uint i = group_1d() * i##_run + gl_LocalInvocationIndex; i < i##_end; i += LOCAL)
#else
#define EACH(i, n)                                               \
  const uint i = group_1d() * LOCAL + gl_LocalInvocationIndex;   \
  if (i < n)
#endif
#endif
