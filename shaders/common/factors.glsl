// f32 values as 16-bit factors of cooperative matrices, four in two words, rounded to the nearest. A finite value beyond the
// range of f16 becomes its largest number and is counted; what isn't finite stays so. By the bits, since compilers may assume
// that floats are finite. BF16: factors are bf16, which has the range of f32.
#ifndef VKFLUX_FACTORS_GLSL
#define VKFLUX_FACTORS_GLSL

// Factors [4 at, 4 at + 4) of an array of uvec4: a matrix must start at a multiple of 16 bytes, which only the type of the
// array's elements promises.
#define PUT_FACTORS(ARRAY, at, four)           \
  ARRAY[(at) / 2][2 * ((at) % 2)] = (four).x; \
  ARRAY[(at) / 2][2 * ((at) % 2) + 1] = (four).y

#include "half.glsl"

#ifdef BF16
uint pack_bf16(vec2 v) {
  const uvec2 u = floatBitsToUint(v), size = u & 0x7fffffffu;
  const uvec2 rounded = mix(u + (0x7fffu + (u >> 16 & 1u)), u | 0x400000u, greaterThan(size, uvec2(0x7f800000u)));
  return rounded.x >> 16 | rounded.y & 0xffff0000u;
}
uvec2 factors(vec4 v) { return uvec2(pack_bf16(v.xy), pack_bf16(v.zw)); }
#else
uint saturated = 0;  // values of this invocation

// Of values within the range of f16, or not finite.
uvec2 factors_in_range(vec4 v) { return uvec2(packFloat2x16(f16vec2(v.xy)), packFloat2x16(f16vec2(v.zw))); }

uvec2 factors(vec4 v) {
  const uvec4 beyond = saturates(floatBitsToUint(v));
  saturated += beyond.x + beyond.y + beyond.z + beyond.w;
  return factors_in_range(mix(v, clamp(v, -65504.0, 65504.0), bvec4(beyond)));
}
#endif
#endif
