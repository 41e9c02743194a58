// Weights as they are stored, decoded to f32. Formats: 0 f32, 1 f16, 2 bf16 (b_format() in autograd/ops/matmul_engine.cpp).
#ifndef VKFLUX_WEIGHT_FORMAT_GLSL
#define VKFLUX_WEIGHT_FORMAT_GLSL

// Group `group` of a texel.
vec4 decode_weights(uint format, uvec4 u, int group) {
  if (format == 1) return vec4(unpackHalf2x16(u[2 * group]), unpackHalf2x16(u[2 * group + 1]));
  if (format == 2) {
    return uintBitsToFloat(uvec4(u[2 * group] << 16, u[2 * group] & 0xffff0000u, u[2 * group + 1] << 16,
                                 u[2 * group + 1] & 0xffff0000u));
  }
  return uintBitsToFloat(u);
}

// Word of element i, and the element in it.
uint weight_word(uint format, uint i) { return format == 0 ? i : i / 2; }
float decode_weight(uint format, uint word, uint i) {
  if (format == 0) return uintBitsToFloat(word);
  const uint half_word = word >> (16 * (i % 2));
  return format == 1 ? unpackHalf2x16(half_word).x : uintBitsToFloat(half_word << 16);
}
#endif
