// Results of WIDTH consecutive vec4 stored at once. CPU implementations store lane by lane and component by component,
// at a price that doesn't depend on a component's size: with WIDE two vec4 are four components of 64 bits.
#ifndef VKFLUX_WIDE_GLSL
#define VKFLUX_WIDE_GLSL
#ifdef WIDE
#extension GL_EXT_shader_explicit_arithmetic_types_int64 : require
#define WIDTH 2u
#define WIDE_VEC u64vec4
uint64_t wide_pair(vec2 x) { return packUint2x32(floatBitsToUint(x)); }
// v: vec4[WIDTH]
#define STORE_WIDE(Y, i, v) \
  Y[i] = u64vec4(wide_pair(v[0].xy), wide_pair(v[0].zw), wide_pair(v[1].xy), wide_pair(v[1].zw))
#else
#define WIDTH 1u
#define WIDE_VEC vec4
#define STORE_WIDE(Y, i, v) Y[i] = v[0]
#endif
#endif
