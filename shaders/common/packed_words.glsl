// Packed weights (autograd/packed.h) out of 32-bit words: the includer defines PACKED_WORD(i).
#ifndef VKFLUX_PACKED_WORDS_GLSL
#define VKFLUX_PACKED_WORDS_GLSL
#include "packed_format.glsl"

// Values [column, column + 4) of the row that starts at word `row` and has so many columns; column % 4 == 0.
vec4 packed_values(uint format, uint row, uint column, uint columns) {
  if (format == 3) return f8_e4m3(PACKED_WORD(row + column / 4));
  if (format == 4) return f8_e5m2(PACKED_WORD(row + column / 4));
  const uint group = column / 256, i = column % 256, block = i / 32;
  if (format == 5) {
    const uint at = row + group * 68, blocks = min(8, (columns - 256 * group) / 32);
    return q8_scale(PACKED_WORD(at + 8 * blocks + block / 2), block) * int8_values(PACKED_WORD(at + i / 4));
  }
  const uint at = row + group * 36;
  const vec2 d = unpackHalf2x16(PACKED_WORD(at));
  const uvec4 scales = q4_scales(PACKED_WORD(at + 1), PACKED_WORD(at + 2), PACKED_WORD(at + 3));
  const vec2 affine = q4_affine(d, scales, block);
  return affine.x * nibble_values(PACKED_WORD(at + 4 + 8 * (i / 64) + i % 32 / 4) >> (4 * (block % 2))) - affine.y;
}
#endif
