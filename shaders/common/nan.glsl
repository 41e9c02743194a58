// min, max and clamp may give either operand for a NaN, and hide it from whoever checks that results are finite.
#ifndef VKFLUX_NAN_GLSL
#define VKFLUX_NAN_GLSL

// By the bits: compilers may assume that floats are finite.
bool is_nan(float x) { return (floatBitsToUint(x) & 0x7fffffffu) > 0x7f800000u; }
bvec4 is_nan(vec4 x) { return greaterThan(floatBitsToUint(x) & 0x7fffffffu, uvec4(0x7f800000u)); }

// y, which was made of x: a NaN where x is one.
float keep_nan(float x, float y) { return is_nan(x) ? x : y; }
vec4 keep_nan(vec4 x, vec4 y) { return mix(y, x, is_nan(x)); }
#endif
