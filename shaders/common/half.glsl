// Bits of an f32 to bits of a 16-bit number, in integers so that every device rounds to nearest even and keeps subnormals;
// f16 saturates to its largest finite value (as to_f16 in autograd/half.h).
#ifndef VKFLUX_HALF_GLSL
#define VKFLUX_HALF_GLSL

uint to_bf16(uint u) {
  if ((u & 0x7fffffffu) > 0x7f800000u) return u >> 16 | 0x40u;
  return (u + 0x7fffu + (u >> 16 & 1u)) >> 16;
}

uint to_f16(uint u) {
  const uint sign = u >> 16 & 0x8000u, v = u & 0x7fffffffu;
  if (v > 0x7f800000u) return sign | 0x7e00u;
  if (v >= 0x477ff000u) return sign | (v == 0x7f800000u ? 0x7c00u : 0x7bffu);
  if (v >= 0x38800000u) return sign | ((v + 0xc8000fffu + (v >> 13 & 1u)) >> 13);
  if (v < 0x33000000u) return sign;
  // Subnormal: the mantissa with its hidden bit, shifted to units of 2^-24.
  const uint mantissa = (v & 0x7fffffu) | 0x800000u, shift = 126u - (v >> 23);
  const uint q = mantissa >> shift, rest = mantissa - (q << shift), half_unit = 1u << (shift - 1u);
  return sign | (q + (rest > half_unit || (rest == half_unit && (q & 1u) == 1u) ? 1u : 0u));
}

// 1 for the finite numbers that become f16's largest although they are beyond its range: from the middle between it and the
// next power of two on.
uvec4 saturates(uvec4 u) { return uvec4(lessThan((u & 0x7fffffffu) - 0x477ff000u, uvec4(0x7f800000u - 0x477ff000u))); }
#endif
