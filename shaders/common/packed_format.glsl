// Packed weights (autograd/packed.h), decoded to f32: values are x q - y with whole numbers q, and (x, y) for every 16 or 32
// of them. The includer defines
//   PACKED_FORMAT    a constant: the number of the type, weight_format() in autograd/ops/packed_weights.h (0 to 2:
//                    weight_format.glsl)
//   PACKED_WORD(i)   word i of the weight
// A row is given by its first word and its number of columns. A unit is 16 columns, a group 4: both start at multiples.
#ifndef VKFLUX_PACKED_FORMAT_GLSL
#define VKFLUX_PACKED_FORMAT_GLSL

const uint F8_E4M3 = 3, F8_E5M2 = 4, Q4_0 = 5, Q4_1 = 6, Q5_0 = 7, Q5_1 = 8, Q8_0 = 9, Q2_K = 10, Q3_K = 11, Q4_K = 12,
           Q5_K = 13, Q6_K = 14;

const bool IS_F8 = PACKED_FORMAT < Q4_0;
// Bits of a number in the first plane of a row and in the second, and the number that stands for zero.
const uint LOW_BITS = IS_F8 || PACKED_FORMAT == Q8_0 ? 8 : PACKED_FORMAT == Q2_K || PACKED_FORMAT == Q3_K ? 2 : 4;
const uint HIGH_BITS = PACKED_FORMAT == Q6_K ? 2
                       : PACKED_FORMAT == Q3_K || PACKED_FORMAT == Q5_0 || PACKED_FORMAT == Q5_1 || PACKED_FORMAT == Q5_K ? 1
                                                                                                                         : 0;
const float ZERO = PACKED_FORMAT == Q8_0   ? 128.0
                   : PACKED_FORMAT == Q6_K ? 32.0
                   : PACKED_FORMAT == Q5_0 ? 16.0
                   : PACKED_FORMAT == Q4_0 ? 8.0
                   : PACKED_FORMAT == Q3_K ? 4.0
                                           : 0.0;
const bool BYTE_SCALES = PACKED_FORMAT == Q2_K || PACKED_FORMAT == Q6_K;
const uint PLANE_BITS = LOW_BITS + HIGH_BITS;
const uint LOW_MASK = LOW_BITS == 8 ? ~0u : LOW_BITS == 4 ? 0x0f0f0f0fu : 0x03030303u;
const uint HIGH_MASK = HIGH_BITS == 2 ? 0x03030303u : 0x01010101u;
const uint HIGH_GROUPS = HIGH_BITS == 2 ? 4 : 8;  // of a word of the second plane

// The words that hold a group's numbers, in each plane.
uint low_word(uint row, uint group) { return PACKED_WORD(row + group * LOW_BITS / 8); }
uint high_word(uint row, uint columns, uint group) {
  return HIGH_BITS == 0 ? 0 : PACKED_WORD(row + columns * LOW_BITS / 32 + group * HIGH_BITS / 8);
}
// The four numbers of a group, one in each byte.
uint group_numbers(uint low, uint high, uint group) {
  const uint q = low >> (LOW_BITS * (group % (8 / LOW_BITS))) & LOW_MASK;
  return HIGH_BITS == 0 ? q : q | (high >> (HIGH_BITS * (group % HIGH_GROUPS)) & HIGH_MASK) << LOW_BITS;
}

// What (x, y) of a unit follow from.
uvec3 scale_words(uint row, uint columns, uint unit) {
  if (IS_F8) return uvec3(PACKED_WORD(row + (columns + 3) / 4), 0, 0);
  const uint at = row + columns * PLANE_BITS / 32;
  if (PACKED_FORMAT == Q4_0 || PACKED_FORMAT == Q5_0 || PACKED_FORMAT == Q8_0) return uvec3(PACKED_WORD(at + unit / 4), 0, 0);
  if (PACKED_FORMAT == Q4_1 || PACKED_FORMAT == Q5_1) return uvec3(PACKED_WORD(at + unit / 2), 0, 0);
  if (BYTE_SCALES) {
    const uint header = at + unit / 16 * 5;
    return uvec3(PACKED_WORD(header), PACKED_WORD(header + 1 + unit % 16 / 4), 0);
  }
  const uint header = at + unit / 16 * 4;
  return uvec3(PACKED_WORD(header), PACKED_WORD(header + 1 + unit % 16 / 8), PACKED_WORD(header + 3));
}

// (x, y) of a unit. `precise`: products and sums are rounded one by one, as the types are defined.
vec2 unit_scale(uvec3 w, uint unit) {
  if (IS_F8) return vec2(uintBitsToFloat(w.x), 0);
  const vec2 d = unpackHalf2x16(w.x);
  if (PACKED_FORMAT == Q4_0 || PACKED_FORMAT == Q5_0 || PACKED_FORMAT == Q8_0) return vec2(unit / 2 % 2 == 0 ? d.x : d.y, 0);
  if (PACKED_FORMAT == Q4_1 || PACKED_FORMAT == Q5_1) return vec2(d.x, -d.y);
  precise vec2 scale;
  if (BYTE_SCALES) {
    const uint b = w.y >> (8 * (unit % 4)) & 0xffu;
    if (PACKED_FORMAT == Q2_K) {
      scale = d * vec2(b & 15u, b >> 4);
    } else {
      scale = vec2(d.x * float(int(b << 24) >> 24), 0);
    }
    return scale;
  }
  // Sixteen numbers of 6 bits: nibbles in two words, the upper bits in a third.
  if (PACKED_FORMAT == Q3_K) {
    const uint s = (w.y >> (4 * (unit % 8)) & 15u) | (w.z >> (2 * (unit % 16)) & 3u) << 4;
    scale = vec2(d.x * (float(s) - 32.0), 0);
  } else {
    const uint first = unit % 16 & 14u, low = w.y >> (4 * (first % 8)), high = w.z >> (2 * first);
    scale = d * vec2((low & 15u) | (high & 3u) << 4, (low >> 4 & 15u) | (high >> 2 & 3u) << 4);
  }
  return scale;
}

// The four bytes of a word in the lower halves of 16 bits each.
uvec2 f8_spread(uint w) { return uvec2((w & 0xffu) | (w & 0xff00u) << 8, (w >> 16 & 0xffu) | (w >> 8 & 0xff0000u)); }

vec4 f8_e4m3(uint w) {
  // An f16 with the same exponent and mantissa fields is smaller by 2^8; NaN's code would be 480.
  const uvec2 s = f8_spread(w), h = (s & 0x00800080u) << 8 | (s & 0x007f007fu) << 7;
  const vec4 x = 256 * vec4(unpackHalf2x16(h.x), unpackHalf2x16(h.y));
  return mix(x, vec4(uintBitsToFloat(0x7fc00000u)), equal(abs(x), vec4(480)));
}
vec4 f8_e5m2(uint w) {
  const uvec2 h = f8_spread(w) << 8;
  return vec4(unpackHalf2x16(h.x), unpackHalf2x16(h.y));
}

// The values of a group.
vec4 group_values(uint numbers, vec2 scale) {
  if (IS_F8) return scale.x * (PACKED_FORMAT == F8_E4M3 ? f8_e4m3(numbers) : f8_e5m2(numbers));
  const vec4 q = vec4(uvec4(numbers, numbers >> 8, numbers >> 16, numbers >> 24) & 0xffu) - ZERO;
  precise vec4 v = scale.x * q - scale.y;
  return v;
}

// Columns [column, column + 4) of a row; column % 4 == 0.
vec4 packed_values(uint row, uint columns, uint column) {
  const uint group = column / 4, unit = column / 16;
  return group_values(group_numbers(low_word(row, group), high_word(row, columns, group), group),
                      unit_scale(scale_words(row, columns, unit), unit));
}

// A unit as it is stored, for kernels that take all of it.
struct PackedUnit {
  uvec4 low;  // of each group
  uint high;
  uvec3 scale;
};
PackedUnit packed_unit(uint row, uint columns, uint unit) {
  PackedUnit u;
  [[unroll]] for (uint g = 0; g < 4; g++) u.low[g] = low_word(row, 4 * unit + g);
  u.high = high_word(row, columns, 4 * unit);
  u.scale = scale_words(row, columns, unit);
  return u;
}
#endif
