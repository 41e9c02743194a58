// One workgroup of LANES invocations per row of a matrix. SIMD: the workgroup is exactly one subgroup and sums
// are shuffle butterflies without a barrier (fast where a subgroup is a CPU vector); otherwise subgroups are
// added up through shared memory, whatever their size. With WIDE (wide.glsl) rows are whole groups of WIDTH units.
// Specialisation constants 0-2 are taken.
#ifndef VKFLUX_ROW_GLSL
#define VKFLUX_ROW_GLSL
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_arithmetic : require
#extension GL_KHR_shader_subgroup_shuffle : require
#extension GL_EXT_control_flow_attributes : require
#include "index.glsl"

layout(constant_id = 0) const uint LANES = 64;
layout(constant_id = 1) const uint SIMD = 0;
layout(constant_id = 2) const uint VEC4 = 1;
layout(local_size_x_id = 0) in;

#include "units.glsl"
#include "wide.glsl"

// Group i of WIDTH units.
#ifdef WIDE
#define STORE_GROUP(Y, i, v) STORE_WIDE(Y, i, v)
#else
#define STORE_GROUP(Y, i, v) STORE(Y, i, v[0])
#endif

shared float row_partial[256];

uint row_lane() { return gl_LocalInvocationIndex; }

float row_sum(float x) {
  if (SIMD != 0) {
    for (uint m = 1; m < LANES; m *= 2) x += subgroupShuffle(x, gl_SubgroupInvocationID ^ m);
    return x;
  }
  x = subgroupAdd(x);
  if (subgroupElect()) row_partial[gl_SubgroupID] = x;
  barrier();
  float s = 0;
  for (uint i = 0; i < gl_NumSubgroups; ++i) s += row_partial[i];
  barrier();
  return s;
}
float row_sum(vec4 x) { return row_sum(x.x + x.y + x.z + x.w); }

float row_max(float x) {
  if (SIMD != 0) {
    for (uint m = 1; m < LANES; m *= 2) x = max(x, subgroupShuffle(x, gl_SubgroupInvocationID ^ m));
    return x;
  }
  x = subgroupMax(x);
  if (subgroupElect()) row_partial[gl_SubgroupID] = x;
  barrier();
  float s = row_partial[0];
  for (uint i = 1; i < gl_NumSubgroups; ++i) s = max(s, row_partial[i]);
  barrier();
  return s;
}
#endif
